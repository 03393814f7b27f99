"""Stable Diffusion 3 and FLUX.1: the transformer predicts the velocity of a rectified flow (Liu et al. 2022)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling

from raymap.base.families.registry import family_of
from raymap.base.pipeline import denoiser_of
from raymap.drawing.prompts import Encoding
from raymap.personalize.objectives.objective import Objective


class _Flow(Objective):
    """At level σ the latents are (1 − σ) · clean + σ · noise, and their velocity is noise − clean.

    The levels are those of the scheduler's own 1,000 timesteps. So a shift that is fixed (SD 3's 3.0) applies in
    training too, and one that depends on an image's size (FLUX.1's) does not, as in diffusers' scripts.
    """

    density: str
    """The distribution of the levels' numbers, as `compute_density_for_timestep_sampling` names it."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._denoiser = denoiser_of(pipeline)
        schedule = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
        self._count = schedule.config.num_train_timesteps
        self._levels = schedule.sigmas[: self._count].to(pipeline.device)
        self._timesteps = schedule.timesteps.to(pipeline.device)

    def times(self, count: int, random: torch.Generator) -> torch.Tensor:
        shares = compute_density_for_timestep_sampling(self.density, count, 0.0, 1.0, generator=random)
        return (shares * self._count).long().clamp(max=self._count - 1)

    def predict(
        self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor, texts: Encoding
    ) -> tuple[torch.Tensor, torch.Tensor]:
        level = self._level(times)
        noisy = (1 - level) * clean + level * noise
        return self._velocity(noisy, self._timesteps[times], texts), noise - clean

    def _level(self, times: torch.Tensor) -> torch.Tensor:
        """Return σ (n, 1, 1, 1)."""
        return self._levels[times][:, None, None, None]

    @abstractmethod
    def _velocity(self, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Encoding) -> torch.Tensor:
        """Return the transformer's prediction at timesteps from 1 to 1,000."""


class StableDiffusion3Flow(_Flow):
    """As in diffusers' `train_dreambooth_lora_sd3.py`: the logits of the levels are standard normal.

    The script compares the clean latents that velocities imply (`precondition_outputs`), which are σ times as far apart
    as the velocities themselves.
    """

    density = "logit_normal"

    def _velocity(self, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Encoding) -> torch.Tensor:
        embeddings, _, pooled, _ = texts
        velocity: torch.Tensor = self._denoiser(
            hidden_states=noisy, timestep=timesteps, encoder_hidden_states=embeddings, pooled_projections=pooled
        ).sample
        return velocity

    def predict(
        self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor, texts: Encoding
    ) -> tuple[torch.Tensor, torch.Tensor]:
        level = self._level(times)
        predicted, target = super().predict(clean, noise, times, texts)
        return level * predicted, level * target


class FluxFlow(_Flow):
    """As in diffusers' `train_dreambooth_lora_flux.py`: levels are uniform, and the guidance scale is an input.

    A base that reads a guidance scale is given the one with which it draws by default, which is also the script's.
    The text that the transformer attends to is T5's, which has no token before a prompt's first.
    """

    density = "none"
    opening = 0

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        self._pipeline = pipeline
        self._guidance = family_of(pipeline).scale if self._denoiser.config.guidance_embeds else None

    def _velocity(self, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Encoding) -> torch.Tensor:
        embeddings, pooled, text_ids = texts
        count, channels, height, width = noisy.shape
        pixels = self._pipeline.vae_scale_factor
        places = self._pipeline._prepare_latent_image_ids(count, height // 2, width // 2, noisy.device, noisy.dtype)
        predicted = self._denoiser(
            hidden_states=self._pipeline._pack_latents(noisy, count, channels, height, width),
            timestep=timesteps / self._count,
            guidance=None if self._guidance is None else noisy.new_full((count,), self._guidance),
            pooled_projections=pooled,
            encoder_hidden_states=embeddings,
            txt_ids=text_ids,
            img_ids=places,
        ).sample
        velocity: torch.Tensor = self._pipeline._unpack_latents(predicted, height * pixels, width * pixels, pixels)
        return velocity
