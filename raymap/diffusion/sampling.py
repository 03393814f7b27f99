"""Draws seed-matched batches: prompts and seeds go in, uint8 pixels come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from raymap.errors import DrawingError
from raymap.study import SamplerSettings


def noise_generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """Return one CPU generator an image, so that an image's initial noise depends on its seed alone."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@dataclass
class PromptEmbeddings:
    """Prompt embeddings of one text encoder state, each prompt encoded alone and once."""

    pipeline: StableDiffusionPipeline

    def __post_init__(self) -> None:
        self._known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> torch.Tensor:
        """Return embeddings (N, 77, width) on the pipeline's device."""
        for prompt in prompts:
            if prompt not in self._known:
                embeddings, _ = self.pipeline.encode_prompt(prompt, self.pipeline.device, 1, False)
                self._known[prompt] = embeddings
        return torch.cat([self._known[p] for p in prompts])


@torch.no_grad()
def draw(
    pipeline: StableDiffusionPipeline,
    embeddings: PromptEmbeddings,
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
        prompt_embeds=embeddings(prompts),
        negative_prompt_embeds=embeddings([""] * batch_size) if sampler.guidance_scale > 1 else None,
        num_inference_steps=sampler.steps,
        guidance_scale=sampler.guidance_scale,
        generator=noise_generators(seeds),
        output_type="pt",
    ).images
    if not torch.isfinite(images).all():
        raise DrawingError("the model drew non-finite pixels")
    pixels = (images.float().permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return np.ascontiguousarray(pixels[: batch_size - padding])
