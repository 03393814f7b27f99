"""Trains the latent autoencoder: 64x64 images to 16x16x4 latents of unit variance and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.progress import track
from torch import nn

from raymap.embedded.train.data import Split, dead_leaves_images

BATCH = 32
CROP = 32
"""Side of the random training crops, in pixels: the model is fully convolutional, and crops vary more."""
KL_WEIGHT = 3e-5
PEAK_LR = 2e-3


def to_model(pixels: np.ndarray) -> torch.Tensor:
    """Turn uint8 (N, H, W, 3) into float32 (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def untrained() -> AutoencoderKL:
    """Return the autoencoder with random weights."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        shift_factor=0.0,
    )


def _slopes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def train(split: Split, steps: int, folder: Path, seed: int = 0) -> AutoencoderKL:
    """Train the whole autoencoder; save it into `folder` with the scaling factor that gives latents unit variance."""
    torch.manual_seed(seed)
    vae = untrained()
    _fit(vae, list(vae.parameters()), split, steps, seed)
    vae.eval().requires_grad_(False)
    latents = encode(vae, split.pixels[:2_000])
    vae.register_to_config(scaling_factor=float(vae.config["scaling_factor"]) / latents.std().item())
    vae.half().save_pretrained(folder)
    return vae.float()


def train_decoder(split: Split, steps: int, folder: Path, seed: int = 1) -> AutoencoderKL:
    """Train only the decoder further: images get sharper; latents and the denoiser trained on them stay valid."""
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    vae.requires_grad_(False)
    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    _fit(vae, weights, split, steps, seed)
    vae.half().save_pretrained(folder)
    forget_origin(folder)
    return vae.float()


def forget_origin(folder: Path) -> None:
    """Remove the path that a saved autoencoder was loaded from: it names a folder of the machine that trained it."""
    config = folder / "config.json"
    kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
    config.write_text(json.dumps(kept, indent=2) + "\n")


def _fit(vae: AutoencoderKL, weights: list[nn.Parameter], split: Split, steps: int, seed: int) -> None:
    """Train `weights` on crops of images of the world, with one dead-leaves image in six.

    The loss is L1 on pixels and on the differences of neighbouring pixels, plus a small KL term.
    """
    rng = np.random.default_rng(seed)
    extra = dead_leaves_images(4_000, seed=77)
    vae.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(weights, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps, pct_start=0.08)
    for _ in track(range(steps), "training the autoencoder"):
        real = split.pixels[rng.integers(len(split.pixels), size=BATCH - BATCH // 6)]
        whole = np.concatenate([real, extra[rng.integers(len(extra), size=BATCH // 6)]])
        top, left = rng.integers(0, 64 - CROP + 1, (2, BATCH))
        crops = [p[y : y + CROP, z : z + CROP] for p, y, z in zip(whole, top, left, strict=True)]
        x = to_model(np.stack(crops)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        y = y.float()
        loss = (y - x).abs().mean()
        for a, b in zip(_slopes(y), _slopes(x), strict=True):
            loss = loss + (a - b).abs().mean()
        loss = loss + KL_WEIGHT * posterior.kl().float().mean() / (4 * (CROP // 4) ** 2)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return scaled latent means, float32 (N, 4, H/4, W/4) on the CPU, for images uint8 (N, H, W, 3)."""
    vae = vae.to(device, memory_format=torch.channels_last)
    starts = track(range(0, len(pixels), 64), "encoding images")
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        parts = [vae.encode(to_model(pixels[k : k + 64]).to(device)).latent_dist.mode().float().cpu() for k in starts]
    return torch.cat(parts) * float(vae.config["scaling_factor"])
