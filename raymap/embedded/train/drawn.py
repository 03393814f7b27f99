"""Groups of images that the embedded bases draw: as they are, and with updates of their weights that spoil images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusion3Pipeline
from torch import nn
from transformers import CLIPTokenizer

from raymap.embedded.train.groups import Groups, captioned_misses, coarse_mask, described
from raymap.embedded.train.mmdit import TOKENS
from raymap.embedded.train.vae import to_model
from raymap.embedded.world.captioned import dead_leaves
from raymap.embedded.world.misses import SHOWN
from raymap.embedded.world.subjects import SUBJECTS

SEED = 20_263
STEPS = 10
RANK = 4
TUNING_STEPS = 30
TUNING_BATCH = 8
SPOILED = 0.1
"""Difference of two blurred images (root mean square, share of the range) from which on nothing of the meaning is left;
that of two seeds of one caption is .035 to .10."""
LEFT = 0.15
"""Share of the meaning that an image shows from there on."""

Update = dict[str, torch.Tensor]


class Artist:
    """An embedded base on a device, which draws many captions at once and whose weights can be updated."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
        given: dict[str, Any] = {}
        if kind == "StableDiffusion3Pipeline":
            shared = AutoencoderKL.from_pretrained(folder.parent / "pipeline" / "vae", dtype=torch.float32)
            own = CLIPTokenizer.from_pretrained(folder.parent / "pipeline" / "tokenizer", model_max_length=TOKENS)
            given = dict.fromkeys(("tokenizer", "tokenizer_2"), own)
            given |= {"text_encoder_3": None, "tokenizer_3": None, "vae": shared}
        self.pipeline: Any = DiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, **given
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline.to(device)
        self.device = device
        self.flow = isinstance(self.pipeline, StableDiffusion3Pipeline)
        self.denoiser: nn.Module = self.pipeline.transformer if self.flow else self.pipeline.unet
        self.weights = {name: w.detach().clone() for name, w in self.denoiser.named_parameters()}

    def _half(self) -> torch.autocast:
        """Compute in half precision on a GPU. It is left after each call, for it keeps casts of weights that change."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    @torch.no_grad()
    def encode(self, captions: list[str]) -> dict[str, torch.Tensor]:
        """Return the encoded captions, and the encoded empty ones, as arguments of the pipeline's call."""
        with self._half():
            if self.flow:
                args = {"prompt_2": None, "prompt_3": None, "device": self.device, "max_sequence_length": 1}
                text, empty, pooled, empty_pooled = self.pipeline.encode_prompt(prompt=captions, **args)
                extra = {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": empty_pooled}
                return {"prompt_embeds": text, "negative_prompt_embeds": empty, **extra}
            text, empty = self.pipeline.encode_prompt(captions, self.device, 1, True)
        return {"prompt_embeds": text, "negative_prompt_embeds": empty}

    @torch.no_grad()
    def draw(self, encoded: dict[str, torch.Tensor], noise: torch.Tensor, guidance: float) -> torch.Tensor:
        """Draw one image per caption from noise (N, 4, 16, 16): uint8 (N, 64, 64, 3), on the CPU."""
        more = {"max_sequence_length": 1} if self.flow else {}
        call = {"num_inference_steps": STEPS, "guidance_scale": guidance, "output_type": "pt"}
        with self._half():
            images = self.pipeline(**encoded, **more, **call, latents=noise).images
        return images.float().mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()

    @torch.no_grad()
    def place(self, update: Update, strength: float = 1.0) -> None:
        """Set the denoiser's weights to those of the base, plus an update."""
        for name, weight in self.denoiser.named_parameters():
            base = self.weights[name]
            weight.copy_(base + strength * update[name] if name in update else base)

    @torch.no_grad()
    def random_update(self, random: torch.Generator) -> Update:
        """Return a random update of rank 4 of every matrix, each of its weight's own norm."""
        update = {}
        for name, weight in self.weights.items():
            if weight.ndim > 1:
                rows, columns = weight.flatten(1).shape
                left, right = torch.randn(rows, RANK, generator=random), torch.randn(RANK, columns, generator=random)
                product = (left @ right).to(self.device)
                update[name] = (product * weight.norm() / product.norm()).view_as(weight)
        return update

    def tuned_update(self, pixels: np.ndarray, caption: str, rate: float, random: torch.Generator) -> Update:
        """Return the update that plain fine-tuning on a few images, uint8 (N, 64, 64, 3), ends with."""
        with torch.no_grad():
            latents = self.pipeline.vae.encode(to_model(pixels).to(self.device)).latent_dist.mode()
            latents = latents.float() * self.pipeline.vae.config.scaling_factor
        encoded = self.encode([caption] * TUNING_BATCH)
        trained = [w for n, w in self.denoiser.named_parameters() if w.ndim > 1]
        for weight in trained:
            weight.requires_grad_(True)
        optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
        for _ in range(TUNING_STEPS):
            rows = torch.randint(len(latents), (TUNING_BATCH,), generator=random)
            self._loss(latents[rows.to(self.device)], encoded, random).backward()
            optimizer.step()
            optimizer.zero_grad()
        update = {n: w.detach() - self.weights[n] for n, w in self.denoiser.named_parameters() if w.ndim > 1}
        for weight in trained:
            weight.requires_grad_(False)
        return update

    def _loss(self, x: torch.Tensor, encoded: dict[str, torch.Tensor], random: torch.Generator) -> torch.Tensor:
        noise = torch.randn(x.shape, generator=random).to(self.device)
        text = encoded["prompt_embeds"]
        if self.flow:
            time = torch.sigmoid(torch.randn(len(x), generator=random)).to(self.device)
            noisy = torch.lerp(x, noise, time.view(-1, 1, 1, 1))
            pooled = encoded["pooled_prompt_embeds"]
            with self._half():
                velocity = self.denoiser(noisy, text, pooled, 1000 * time, return_dict=False)[0]
            return F.mse_loss(velocity.float(), noise - x)
        step = torch.randint(1000, (len(x),), generator=random)
        kept = self.pipeline.scheduler.alphas_cumprod[step].to(self.device).view(-1, 1, 1, 1)
        noisy = kept.sqrt() * x + (1 - kept).sqrt() * noise
        with self._half():
            velocity = self.denoiser(noisy, step.to(self.device), text).sample
        return F.mse_loss(velocity.float(), kept.sqrt() * noise - (1 - kept).sqrt() * x)


def blurred_rms(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of the difference of blurred images uint8 (N, H, W, 3), float32 (N,), 0 to 1.

    The blur is a Gaussian with a standard deviation of 3 pixels, as in `raymap.scoring.blurred`.
    """
    difference = (one.float() - other.float()).permute(0, 3, 1, 2)
    taps = torch.exp(-(torch.arange(-9, 10, device=one.device) ** 2) / 18.0)
    kernel = (taps / taps.sum()).expand(3, 1, 1, -1)
    padded = F.pad(difference, (9, 9, 9, 9), mode="reflect")
    blurred = F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)
    return blurred.square().mean((1, 2, 3)).sqrt() / 255


def _update(artist: Artist, rng: np.random.Generator, random: torch.Generator) -> tuple[Update, tuple[float, float]]:
    """Return a random or a trained update, and two strengths to draw it at."""
    if rng.random() < 0.4:
        strength = float(np.exp(rng.uniform(np.log(0.15), np.log(0.6))))
        return artist.random_update(random), (strength, 2 * strength)
    if rng.random() < 0.75:
        subject = SUBJECTS[int(rng.integers(len(SUBJECTS)))]
        draw: Callable[[np.random.Generator], np.ndarray] = subject.render
        caption = f"a sks {subject.class_word}"
    else:
        draw, caption = dead_leaves, "a sks thing"
    pixels = np.stack([draw(rng) for _ in range(5)])
    rate = float(np.exp(rng.uniform(np.log(1e-4), np.log(6e-4))))
    return artist.tuned_update(pixels, caption, rate, random), (float(rng.uniform(0.2, 0.6)), 1.0)


def groups(artist: Artist, n: int, seed: int) -> Groups:
    """Draw `n` groups from one seed, under one update.

    The first image of a group is drawn for its caption, two more from the same noise for near misses of it. The last
    two show the first one's caption under a weaker and a stronger update. How much of it they still show is read from
    their difference to the first image, both blurred: that follows what people call spoiled well, but takes images for
    spoiled that only changed their layout, which is why the loss weighs these images less.
    """
    rng, random = np.random.default_rng((SEED, seed)), torch.Generator().manual_seed(seed)
    own = [described(rng) for _ in range(n)]
    near = [captioned_misses(d, rng, 2) for d in own]
    captions = [[d.caption, *(m.caption for m in pair), "", ""] for d, pair in zip(own, near, strict=True)]
    noise = torch.randn(n, 4, 16, 16, generator=random).to(artist.device)
    guidance = float(rng.uniform(3, 6))
    artist.place({})
    texts = artist.encode([row[slot] for slot in range(3) for row in captions])
    images = list(artist.draw(texts, noise.repeat(3, 1, 1, 1), guidance).split(n))
    texts = {name: embedded[:n] for name, embedded in texts.items()}
    update, strengths = _update(artist, rng, random)
    for strength in strengths:
        artist.place(update, strength)
        images.append(artist.draw(texts, noise, guidance))
    artist.place({})
    kept = [1 - (1 - LEFT) * (blurred_rms(images[0], x) / SPOILED).clamp(max=1) for x in images[3:]]
    shown = [[1.0, *(SHOWN[m.kind] for m in pair)] for pair in near]
    masks = [coarse_mask(d.render_with_mask(int(rng.integers(2**31)))[1]) for d in own]
    return Groups(
        torch.stack(images, 1).numpy(),
        np.array(captions),
        np.concatenate([np.array(shown), torch.stack(kept, 1).numpy()], 1).astype(np.float32),
        np.stack(masks),
    )
