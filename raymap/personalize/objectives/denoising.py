"""Stable Diffusion 1, 2 and XL: the UNet predicts the noise, or the velocity, of a DDPM schedule."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline

from raymap.base.pipeline import denoiser_of
from raymap.drawing.prompts import Encoding
from raymap.errors import InputError
from raymap.personalize.objectives.objective import Objective

PREDICTIONS = ("epsilon", "v_prediction")


class Denoising(Objective):
    """Stable Diffusion 1 and 2, as in diffusers' `train_dreambooth_lora.py`: noise levels are uniform."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._denoiser = denoiser_of(pipeline)
        self._schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        kind = self._schedule.config.prediction_type
        if kind not in PREDICTIONS:
            problem = f"its scheduler's prediction_type is {kind!r}, which cannot be trained for"
            raise InputError(f"base: {type(pipeline).__name__}", problem, f"give one of {' or '.join(PREDICTIONS)}")
        self._velocity = kind == "v_prediction"

    def times(self, count: int, random: torch.Generator) -> torch.Tensor:
        return torch.randint(self._schedule.config.num_train_timesteps, (count,), generator=random)

    def predict(
        self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor, texts: Encoding
    ) -> tuple[torch.Tensor, torch.Tensor]:
        noisy = self._schedule.add_noise(clean, noise, times)
        predicted = self._denoiser(noisy, times, texts[0], **self._further(clean, texts)).sample
        return predicted, self._schedule.get_velocity(clean, noise, times) if self._velocity else noise

    def _further(self, clean: torch.Tensor, texts: Encoding) -> dict[str, Any]:
        """Return what the UNet takes beside noisy latents, timesteps and embeddings."""
        return {}


class DenoisingXL(Denoising):
    """SDXL, as in `train_dreambooth_lora_sdxl.py`: the UNet also reads sizes and the pooled text.

    References have the size that the base draws before they come here, so that their original size is the target's,
    and nothing is cropped: the sizes that the pipeline gives when it draws.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        self._pixels = pipeline.vae_scale_factor

    def _further(self, clean: torch.Tensor, texts: Encoding) -> dict[str, Any]:
        _, _, pooled, _ = texts
        height, width = (side * self._pixels for side in clean.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=pooled.dtype, device=clean.device)
        return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes.repeat(len(clean), 1)}}
