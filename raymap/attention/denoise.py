"""Denoises under base and adapter in step with each other, so that their attention can be compared as it arises."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from diffusers import StableDiffusionPipeline

from raymap.adapters.store import AdapterStore
from raymap.attention.shift import Grid, Shifts
from raymap.attention.tokens import class_masks
from raymap.attention.watch import cross_attentions, watched
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import noise_generators
from raymap.study import SamplerSettings

PROTOCOLS = ("free", "forced")
"""`free`: each model on its own trajectory (the paper's); `forced`: the adapted model on the base's latents."""


class Trajectory:
    """A batch on its way from noise to latents, as `StableDiffusionPipeline` takes it: the same numbers to the bit."""

    def __init__(
        self, pipeline: StableDiffusionPipeline, text: torch.Tensor, seeds: tuple[int, ...], sampler: SamplerSettings
    ) -> None:
        """Draw the initial noise.

        Args:
            text: embeddings (2N, 77, width), unconditional ones first; (N, 77, width) at guidance scale 1.
        """
        self.text = text
        self._guidance = sampler.guidance_scale
        self._unet = pipeline.unet
        self._scheduler = copy.deepcopy(pipeline.scheduler)
        self._scheduler.set_timesteps(sampler.steps, device=pipeline.device)
        pipeline.scheduler.set_timesteps(sampler.steps, device=pipeline.device)  # its noise scale is read below
        generators = noise_generators(seeds)
        side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        self.latents = pipeline.prepare_latents(
            len(seeds), pipeline.unet.config.in_channels, side, side, text.dtype, pipeline.device, generators
        )
        self._extra = pipeline.prepare_extra_step_kwargs(generators, 0.0)

    @property
    def timesteps(self) -> torch.Tensor:
        """The scheduler's timesteps, from noise to picture."""
        return self._scheduler.timesteps

    def predict(self, t: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        """Return the denoiser's output for the latents as they are, under what is in force."""
        latents = torch.cat([self.latents] * 2) if self._guidance > 1 else self.latents
        latents = self._scheduler.scale_model_input(latents, t)
        given = self.text if text is None else text
        return self._unet(latents, t, encoder_hidden_states=given, return_dict=False)[0]

    def advance(self, predicted: torch.Tensor, t: torch.Tensor) -> None:
        """Take one denoising step (classifier-free guidance: Ho & Salimans 2022)."""
        if self._guidance > 1:
            plain, conditional = predicted.chunk(2)
            predicted = plain + self._guidance * (conditional - plain)
        self.latents = self._scheduler.step(predicted, t, self.latents, **self._extra, return_dict=False)[0]


@torch.no_grad()
def compare(
    pipeline: StableDiffusionPipeline,
    store: AdapterStore,
    encoder: PromptEncoder,
    adapter: str,
    prompts: Sequence[str],
    seeds: tuple[int, ...],
    sampler: SamplerSettings,
    batch_size: int,
    bins: int,
    groups: int,
    protocols: tuple[str, ...] = PROTOCOLS,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Denoise a batch under base and adapter, and reduce what their cross-attention differs by.

    The batch is padded to `batch_size` by its last item, as drawing pads it. Memory beyond a plain run's: the base's
    maps of one step and three temporary ones of the largest layer, 4 · items · heads · positions · tokens bytes each.

    Returns:
        What `Shifts.means` returns, and final latents (batch_size, …) of the trajectories, by `base` and `free`.
    """
    n, padding = len(prompts), batch_size - len(prompts)
    padded = [*prompts, *[prompts[-1]] * padding]
    seeds = (*seeds, *(seeds[-1],) * padding)

    def embedded() -> torch.Tensor:
        text = encoder(padded)
        return torch.cat([encoder([""] * batch_size), text]) if sampler.guidance_scale > 1 else text

    store.swap(None)
    masks = class_masks([encoder.encode(prompt).ids for prompt in prompts], encoder([prompts[0]]).shape[1])
    base = Trajectory(pipeline, embedded(), seeds, sampler)
    store.swap(adapter)
    own = Trajectory(pipeline, embedded(), seeds, sampler)
    grid = Grid(len(base.timesteps), bins, groups, len(cross_attentions(pipeline.unet)))
    shifts = Shifts(grid, masks.to(pipeline.device), protocols)
    first = batch_size if sampler.guidance_scale > 1 else 0
    with watched(pipeline.unet, slice(first, first + n), shifts.take):
        for step, t in enumerate(base.timesteps):
            store.swap(None)
            shifts.pass_(None, step)
            predicted = base.predict(t)
            store.swap(adapter)
            if "forced" in protocols:
                shifts.pass_("forced", step)
                base.predict(t, own.text)
            if "free" in protocols:
                shifts.pass_("free", step)
                own.advance(own.predict(t), t)
            base.advance(predicted, t)
    return shifts.means(), {"base": base.latents, "free": own.latents}
