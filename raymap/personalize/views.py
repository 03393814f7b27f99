"""Training views of a subject: its reference images, mirrored or rescaled, encoded by the autoencoder once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

ENCODE_BATCH = 8
RESCALED_VIEWS = 64


@dataclass(frozen=True)
class Views:
    """Encoded images: latent means and standard deviations (N, channels, h, w), and the captions of each image.

    Latents are in the denoiser's scale, float32.

    `masks` (N, 1, h, w), if any, are 1 where an image shows the reference and 0 where it was padded.
    """

    mean: torch.Tensor
    std: torch.Tensor
    captions: tuple[tuple[str, ...], ...]
    masks: torch.Tensor | None = None

    def sample(self, rows: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Draw latents of these rows from their distributions, (len(rows), channels, h, w)."""
        spread = torch.randn((len(rows), *self.mean.shape[1:]), generator=random)
        return self.mean[rows] + self.std[rows] * spread.to(self.mean.device)


@torch.no_grad()
def encode(
    pipeline: DiffusionPipeline,
    images: np.ndarray,
    captions: tuple[tuple[str, ...], ...],
    masks: np.ndarray | None = None,
) -> Views:
    """Encode images, uint8 (N, H, W, 3), each with its captions; masks are float (N, h, w), of the latents' size."""
    parts = []
    for start in range(0, len(images), ENCODE_BATCH):
        x = torch.tensor(images[start : start + ENCODE_BATCH]).permute(0, 3, 1, 2).float().to(pipeline.device)
        parts.append(pipeline.vae.encode((x / 127.5 - 1).to(pipeline.vae.dtype)).latent_dist)
    config = pipeline.vae.config
    mean, std = (torch.cat([getattr(p, name).float() for p in parts]) for name in ("mean", "std"))
    mean, std = (mean - (config.shift_factor or 0)) * config.scaling_factor, std * config.scaling_factor
    kept = None if masks is None else torch.tensor(masks, dtype=torch.float32, device=mean.device)[:, None]
    return Views(mean, std, captions, kept)


def flipped(images: np.ndarray) -> np.ndarray:
    """Return images and their mirror images, (2N, H, W, 3)."""
    return np.concatenate([images, images[:, :, ::-1]])


def rescaled(
    images: np.ndarray, caption: str, seed: int, factor: int
) -> tuple[np.ndarray, tuple[tuple[str, ...], ...], np.ndarray]:
    """Return Custom Diffusion's views of the references (Kumari et al. 2023; diffusers' train_custom_diffusion.py).

    Two in three are shrunk to between a third of their size and all of it and pasted on gray. The others are enlarged
    to 1.2 to 1.4 times their size and cropped. Captions say so below 0.6 and above 1. The original draws new sizes at
    every step; here 64 views are drawn once, so that each is encoded once.

    Args:
        images: the references, uint8 (N, H, W, 3).
        seed: decides sizes and places.
        factor: how many image pixels there are to a latent pixel, along a side.

    Returns:
        images (64, H, W, 3), their captions, and masks (64, H/factor, W/factor) that leave out padding and the border
        of the pasted image.
    """
    rng = np.random.default_rng(seed)
    size = images.shape[1]
    side = size // factor
    views, masks = [], []
    captions: list[tuple[str, ...]] = []
    for k in range(RESCALED_VIEWS):
        shrink = rng.random() < 0.66
        scale = int(rng.integers(size // 3, size + 1) if shrink else rng.integers(int(1.2 * size), int(1.4 * size)))
        image = np.asarray(Image.fromarray(images[k % len(images)]).resize((scale, scale), Image.Resampling.BILINEAR))
        top, left = rng.integers(0, abs(size - scale) + 1, 2)
        if scale > size:
            views.append(image[top : top + size, left : left + size])
            masks.append(np.ones((side, side)))
            captions.append((f"zoomed in {caption}", f"close up {caption}"))
            continue
        canvas, mask = np.full((size, size, 3), 127, dtype=np.uint8), np.zeros((side, side))
        canvas[top : top + scale, left : left + scale] = image
        rows = slice(top // factor + 1, (top + scale) // factor - 1)
        mask[rows, left // factor + 1 : (left + scale) // factor - 1] = 1
        views.append(canvas)
        masks.append(mask if mask.any() else np.ones((side, side)))
        captions.append((f"a far away {caption}", f"very small {caption}") if scale < 0.6 * size else (caption,))
    return np.stack(views), tuple(captions), np.stack(masks)
