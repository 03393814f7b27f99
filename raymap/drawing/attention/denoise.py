"""Denoises under base and adapter in step with each other, so that their attention can be compared at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from diffusers import DiffusionPipeline

from raymap.adapters.resident import AdapterStore
from raymap.base.families.registry import family_of
from raymap.base.pipeline import denoiser_of
from raymap.drawing.attention.heat import Heat, TokenMaps
from raymap.drawing.attention.shift import Grid, Shifts
from raymap.drawing.attention.tokens import class_masks
from raymap.drawing.attention.watch import cross_attentions, watched
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import noise_generators
from raymap.errors import DrawingError
from raymap.study.model import AttentionSettings, SamplerSettings


class Trajectory:
    """A batch on its way from noise to latents, with the numbers of `StableDiffusionPipeline` to the last bit."""

    def __init__(
        self, pipeline: DiffusionPipeline, text: torch.Tensor, seeds: tuple[int, ...], sampler: SamplerSettings
    ) -> None:
        """Draw the initial noise.

        Args:
            text: embeddings (2N, tokens, width), unconditional ones first; (N, tokens, width) at guidance scale 1.
        """
        self.text = text
        self._guidance = sampler.guidance_scale
        self._denoiser = denoiser_of(pipeline)
        self._scheduler = copy.deepcopy(pipeline.scheduler)
        self._scheduler.set_timesteps(sampler.steps, device=pipeline.device)
        pipeline.scheduler.set_timesteps(sampler.steps, device=pipeline.device)  # its noise scale is read below
        generators = noise_generators(seeds)
        config = self._denoiser.config
        side = config.sample_size * pipeline.vae_scale_factor
        self.latents = pipeline.prepare_latents(
            len(seeds), config.in_channels, side, side, text.dtype, pipeline.device, generators
        )
        self._extra = pipeline.prepare_extra_step_kwargs(generators, 0.0)

    @property
    def timesteps(self) -> torch.Tensor:
        """The scheduler's timesteps, from noise to image."""
        return self._scheduler.timesteps

    def predict(self, t: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        """Return the denoiser's output for the present latents, under the adapter in force."""
        latents = torch.cat([self.latents] * 2) if self._guidance > 1 else self.latents
        latents = self._scheduler.scale_model_input(latents, t)
        given = self.text if text is None else text
        return self._denoiser(latents, t, encoder_hidden_states=given, return_dict=False)[0]

    def advance(self, predicted: torch.Tensor, t: torch.Tensor) -> None:
        """Take one denoising step (classifier-free guidance: Ho & Salimans 2022)."""
        if self._guidance > 1:
            plain, conditional = predicted.chunk(2)
            predicted = plain + self._guidance * (conditional - plain)
        self.latents = self._scheduler.step(predicted, t, self.latents, **self._extra, return_dict=False)[0]


@dataclass(frozen=True)
class Compared:
    """By how much the attention of base and adapted model differs, for a batch.

    `shifts` is float32 (protocols, items, layers, bins, head groups, classes, measures), as `Shifts.means` returns it;
    `layers` are names, `timesteps` are each bin's means, `tokens` (items, classes) is how many tokens a class has, and
    `heat` holds maps of single tokens, or None where nothing was computed.
    """

    shifts: np.ndarray
    layers: tuple[str, ...]
    timesteps: tuple[float, ...]
    tokens: np.ndarray
    heat: TokenMaps | None = None


class Comparer:
    """One base with its adapters, whose attention is compared with the base's own, batch by batch."""

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        store: AdapterStore,
        encoder: PromptEncoder,
        sampler: SamplerSettings,
        settings: AttentionSettings,
        batch_size: int,
    ) -> None:
        self._pipeline, self._store, self._encoder = pipeline, store, encoder
        self._sampler, self._settings, self._size = sampler, settings, batch_size
        pipeline.scheduler.set_timesteps(sampler.steps)
        steps = pipeline.scheduler.timesteps.tolist()
        self._layers = tuple(cross_attentions(denoiser_of(pipeline), family_of(pipeline)))
        self._grid = Grid(len(steps), min(settings.bins, len(steps)), settings.head_groups, len(self._layers))
        bins = range(self._grid.bins)
        self._timesteps = tuple(fmean(t for k, t in enumerate(steps) if self._grid.bin_of(k) == b) for b in bins)

    def unmoved(self, prompts: Sequence[str]) -> Compared:
        """Return the comparison of a batch that is proved to be the base's own: no shift, and no attention measured."""
        masks = self._masks(prompts)
        items, _, classes = masks.shape
        grid, protocols = self._grid, len(self._settings.protocols)
        shifts = np.zeros((protocols, items, grid.layers, grid.bins, grid.groups, classes, 3), np.float32)
        shifts[..., 1] = np.nan
        return Compared(shifts, self._layers, self._timesteps, masks.sum(1).int().numpy())

    @torch.no_grad()
    def compare(
        self, adapter: str, prompts: Sequence[str], seeds: tuple[int, ...]
    ) -> tuple[Compared, dict[str, torch.Tensor]]:
        """Denoise a batch under base and adapter, and reduce the differences of their cross-attention.

        The batch is padded by its last item, as drawing pads it. Beyond the memory of a plain run it needs that of the
        base's maps of one step, and of a few temporary maps of the largest layer, 4 · items · heads · positions ·
        tokens bytes each.

        Returns:
            The comparison, and the final latents (batch size, …) of the trajectories, `base` and `free`.

        Raises:
            DrawingError: a measurement is not finite.
        """
        n, size, store = len(prompts), self._size, self._store
        padded = [*prompts, *[prompts[-1]] * (size - n)]
        seeds = (*seeds, *(seeds[-1],) * (size - n))
        store.swap(None)
        masks = self._masks(prompts)
        shifts = Shifts(self._grid, masks.to(self._pipeline.device), self._settings.protocols)
        heat = Heat(list(prompts), self._words(prompts), self._settings.protocols[0], self._pipeline.device)
        base = Trajectory(self._pipeline, self._embedded(padded), seeds, self._sampler)
        store.swap(adapter)
        own = Trajectory(self._pipeline, self._embedded(padded), seeds, self._sampler)

        def take(layer: int, maps: torch.Tensor) -> None:
            shifts.take(layer, maps)
            heat.take(shifts.passing, maps)

        first = size if self._sampler.guidance_scale > 1 else 0
        with watched(denoiser_of(self._pipeline), family_of(self._pipeline), slice(first, first + n), take):
            for step, t in enumerate(base.timesteps):
                store.swap(None)
                shifts.pass_((), step)
                predicted = base.predict(t)
                store.swap(adapter)
                asked = self._settings.protocols
                once = step == 0 and "free" in asked  # both protocols start from the same noise: one pass serves both
                if "forced" in asked and not once:
                    shifts.pass_(("forced",), step)
                    base.predict(t, own.text)
                if "free" in asked:
                    shifts.pass_(asked if once else ("free",), step)
                    own.advance(own.predict(t), t)
                base.advance(predicted, t)
        means = shifts.means()
        if not torch.isfinite(means).all():
            raise DrawingError(f"under {adapter}: attention is not finite")
        counts = masks.sum(1).int().numpy()
        compared = Compared(means.cpu().numpy(), self._layers, self._timesteps, counts, heat.means())
        return compared, {"base": base.latents, "free": own.latents}

    def _masks(self, prompts: Sequence[str]) -> torch.Tensor:
        length = self._encoder.texts(prompts[:1])[0].shape[1]
        return class_masks([self._encoder.ids(prompt) for prompt in prompts], length)

    def _words(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the pieces into which the base's tokenizer divides each prompt's words."""
        ids = [self._encoder.ids(prompt)[1:-1] for prompt in prompts]
        return [tuple(self._pipeline.tokenizer.convert_ids_to_tokens(list(own))) for own in ids]

    def _embedded(self, prompts: list[str]) -> torch.Tensor:
        sides = [[""] * len(prompts), prompts] if self._sampler.guidance_scale > 1 else [prompts]
        return torch.cat([self._encoder.texts(side)[0] for side in sides])
