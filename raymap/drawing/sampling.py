"""Draws seed-matched batches: prompts and seeds go in, and uint8 pixels come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from raymap.drawing.prompts import PromptEncoder
from raymap.errors import DrawingError
from raymap.study.model import SamplerSettings


def noise_generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """Return one CPU generator per image, so that an image's initial noise depends on its seed alone."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def denoising_steps(pipeline: DiffusionPipeline, sampler: SamplerSettings) -> int:
    """Return how often drawing calls the denoiser: some schedulers add a step, or take two for each."""
    pipeline.scheduler.set_timesteps(sampler.steps)
    return len(pipeline.scheduler.timesteps)


@torch.no_grad()
def draw(
    pipeline: DiffusionPipeline,
    encoder: PromptEncoder,
    prompts: list[str],
    seeds: tuple[int, ...],
    sampler: SamplerSettings,
    batch_size: int,
    before_step: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Draw one batch, padded to `batch_size` by repeating its last image; the padding is removed again.

    Args:
        before_step: called before every denoising step with its number from 0, after the prompts were encoded.

    Returns:
        uint8 (N, H, W, 3), rounded as the pipeline itself rounds.

    Raises:
        DrawingError: a pixel is not finite.
    """
    padding = batch_size - len(prompts)
    prompts = prompts + [prompts[-1]] * padding
    seeds = seeds + (seeds[-1],) * padding
    embeddings = encoder(prompts)
    negative = encoder([""] * batch_size) if sampler.guidance_scale > 1 else None

    def after_step(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if before_step and step + 1 < pipeline.num_timesteps:
            before_step(step + 1)
        return values

    if before_step:
        before_step(0)
    images = pipeline(
        prompt_embeds=embeddings,
        negative_prompt_embeds=negative,
        num_inference_steps=sampler.steps,
        guidance_scale=sampler.guidance_scale,
        generator=noise_generators(seeds),
        output_type="pt",
        callback_on_step_end=after_step if before_step else None,
    ).images
    finite = torch.isfinite(images).all()
    kept = images[: batch_size - padding].float().permute(0, 2, 3, 1)
    pixels: np.ndarray = (kept * 255).round().to(torch.uint8).contiguous().cpu().numpy()
    if not finite:  # asked after the copy, so that the host waits for the device once per batch
        raise DrawingError("the model drew non-finite pixels")
    return pixels
