"""Draws seed-matched batches by the pipeline's own call: prompts and seeds go in, and uint8 pixels come out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from raymap.base.families.registry import family_of
from raymap.base.pipeline import own_of
from raymap.drawing.prompts import PromptEncoder
from raymap.errors import DrawingError
from raymap.study.model import SamplerSettings

BeforeStep = Callable[[int, int], None]
"""Called before every denoising step with its number from 0 and how many there are, after prompts were encoded."""


def noise_generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """Return one CPU generator per image, so that an image's initial noise depends on its seed alone."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def call_of(
    pipeline: DiffusionPipeline, prompts: Sequence[str], seeds: tuple[int, ...], sampler: SamplerSettings
) -> dict[str, Any]:
    """Return the arguments with which a pipeline draws a batch of images, as tensors."""
    family = family_of(pipeline)
    given: dict[str, Any] = {**family.call, **own_of(pipeline).call}
    if family.negative is not None:
        given["negative_prompt"] = [family.negative] * len(prompts)
    if family.guidance is not None:
        given[family.guidance] = sampler.guidance_scale
    for name in ("height", "width"):
        if (side := getattr(sampler, name)) is not None:
            given[name] = side
    return {
        "prompt": list(prompts),
        "generator": noise_generators(seeds),
        "num_inference_steps": sampler.steps,
        "output_type": "pt",
        "return_dict": False,
        **given,
    }


@torch.no_grad()
def draw(
    pipeline: DiffusionPipeline,
    encoder: PromptEncoder,
    prompts: list[str],
    seeds: tuple[int, ...],
    sampler: SamplerSettings,
    batch_size: int,
    before_step: BeforeStep | None = None,
) -> np.ndarray:
    """Draw one batch, padded to `batch_size` by repeating its last image; the padding is removed again.

    Returns:
        uint8 (N, H, W, 3), rounded as the pipeline itself rounds.

    Raises:
        DrawingError: a pixel is not finite.
    """
    padding = batch_size - len(prompts)
    prompts = prompts + [prompts[-1]] * padding
    seeds = seeds + (seeds[-1],) * padding
    with encoder.in_place(), stepping(pipeline.scheduler, before_step):
        images = pipeline(**call_of(pipeline, prompts, seeds, sampler))[0]
    if images.dim() == 5:  # a video of one frame
        images = images[:, 0]
    finite = torch.isfinite(images).all()
    kept = images[: batch_size - padding].float().permute(0, 2, 3, 1)
    pixels: np.ndarray = (kept * 255).round().to(torch.uint8).contiguous().cpu().numpy()
    if not finite:  # asked after the copy, so that the host waits for the device once per batch
        raise DrawingError("the model drew non-finite pixels")
    return pixels


@contextlib.contextmanager
def stepping(scheduler: Any, before_step: BeforeStep | None) -> Iterator[None]:
    """Have `before_step` called as a pipeline walks down its scheduler's timesteps."""
    if before_step is None:
        yield
        return
    set_timesteps, step, done = scheduler.set_timesteps, scheduler.step, 0

    # Pipelines look at the signatures of both, which `wraps` hands on.
    @functools.wraps(set_timesteps)
    def started(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        before_step(0, len(scheduler.timesteps))

    @functools.wraps(step)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        result = step(*args, **kwargs)
        done += 1
        if done < len(scheduler.timesteps):
            before_step(done, len(scheduler.timesteps))
        return result

    scheduler.set_timesteps, scheduler.step = started, stepped
    try:
        yield
    finally:
        del scheduler.set_timesteps, scheduler.step
