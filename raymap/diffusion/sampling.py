"""Draws seed-matched batches: prompts and seeds go in, uint8 pixels come out."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from raymap.diffusion.prompts import PromptEncoder
from raymap.errors import DrawingError
from raymap.study import SamplerSettings


def noise_generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """Return one CPU generator an image, so that an image's initial noise depends on its seed alone."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@torch.no_grad()
def draw(
    pipeline: StableDiffusionPipeline,
    encoder: PromptEncoder,
    prompts: list[str],
    seeds: tuple[int, ...],
    sampler: SamplerSettings,
    batch_size: int,
) -> np.ndarray:
    """Draw one batch, padded to `batch_size` by repeating its last image; the padding is cut off again.

    Returns:
        uint8 (N, H, W, 3), as `StableDiffusionPipeline` itself would round them.

    Raises:
        DrawingError: when a pixel is not finite.
    """
    padding = batch_size - len(prompts)
    prompts = prompts + [prompts[-1]] * padding
    seeds = seeds + (seeds[-1],) * padding
    images = pipeline(
        prompt_embeds=encoder(prompts),
        negative_prompt_embeds=encoder([""] * batch_size) if sampler.guidance_scale > 1 else None,
        num_inference_steps=sampler.steps,
        guidance_scale=sampler.guidance_scale,
        generator=noise_generators(seeds),
        output_type="pt",
    ).images
    finite = torch.isfinite(images).all()
    kept = images[: batch_size - padding].float().permute(0, 2, 3, 1)
    pixels: np.ndarray = (kept * 255).round().to(torch.uint8).contiguous().cpu().numpy()
    if not finite:  # asked after the copy: the host waits for the device once a batch
        raise DrawingError("the model drew non-finite pixels")
    return pixels
