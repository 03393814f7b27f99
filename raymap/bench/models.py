"""Models of a named architecture with random weights, their FLOPs, and random adapters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from raymap.adapters.lora import LORA_FILE
from raymap.adapters.update import LowRank
from raymap.base.clip_tokenizer import clip_tokenizer
from raymap.base.families.registry import family_of
from raymap.base.flops.count import count_flops
from raymap.base.folder import OUTLINES
from raymap.base.shapes import shapes_in

RANK = 4
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class Size:
    """An architecture: the settings of its configurations that are not diffusers' or transformers' defaults."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]


def _vae(channels: tuple[int, ...], layers: int) -> dict[str, Any]:
    return {
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
    }


def _outlined(name: str) -> Size:
    unet, vae, text = (
        json.loads((OUTLINES / name / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder")
    )
    return Size(unet, vae, text)


SIZES = {
    "sd15": _outlined("sd15"),
    "tiny": Size(
        {
            "sample_size": 32,
            "cross_attention_dim": 32,
            "block_out_channels": (32, 64),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
        },
        _vae((32, 32), 1),
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    ),
}


def random_base(size: str | Size, device: str = "cpu", dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """Return a pipeline of a given size (a name in SIZES, or a `Size`) with random weights from a fixed seed."""
    architecture = SIZES[size] if isinstance(size, str) else size
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**architecture.unet)
        vae = AutoencoderKL(**architecture.vae, norm_num_groups=32)
        text_encoder = CLIPTextModel(CLIPTextConfig(**architecture.text))
    for module in (unet, vae, text_encoder):
        module.eval().requires_grad_(False)
        # diffusers' own `to` warns about modules that have to stay float32, though there are none.
        nn.Module.to(module, dtype)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def quiet() -> None:
    """Hide the progress bars that diffusers and transformers show while they load."""
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()


def image_flops(pipeline: StableDiffusionPipeline, steps: int, guided: bool) -> float:
    """Return the FLOPs of one image's denoiser passes and decoding, attention included.

    Args:
        steps: sampling steps.
        guided: whether guidance makes every step two denoiser passes.
    """
    unet, vae = (shapes_in(module) for module in (pipeline.unet, pipeline.vae))
    side, tokens = pipeline.unet.config.sample_size, pipeline.tokenizer.model_max_length
    return count_flops(family_of(pipeline), unet, vae, (side, side), tokens).image(steps, 1 + guided)


def random_lora(unet: nn.Module, seed: int) -> dict[str, LowRank]:
    """Return a random rank-4 update of every attention projection: name of the weight -> factors."""
    random = torch.Generator().manual_seed(seed)
    updates = {}
    for name, module in unet.named_modules():
        if name.endswith(TARGETS):
            out, inner = module.weight.shape
            down = torch.randn(RANK, inner, generator=random) / inner
            updates[f"unet.{name}.weight"] = LowRank(down, torch.randn(out, RANK, generator=random), 1.0)
    return updates


def write_lora(updates: dict[str, LowRank], folder: Path) -> Path:
    """Write updates into a folder as a LoRA file in diffusers' format; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, update in updates.items():
        module = name.removesuffix(".weight")
        tensors |= {f"{module}.lora.down.weight": update.down, f"{module}.lora.up.weight": update.up}
    save_file(tensors, folder / LORA_FILE)
    return folder
