"""Compares the attention of base and adapted model while both denoise in step with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from raymap.adapters.resident import AdapterStore
from raymap.base.families.registry import family_of
from raymap.base.pipeline import denoiser_of
from raymap.drawing.attention.heat import Heat, TokenMaps
from raymap.drawing.attention.lockstep import Pass, lockstep
from raymap.drawing.attention.shift import Grid, Shifts
from raymap.drawing.attention.tokens import Reading, class_masks, read_prompt
from raymap.drawing.attention.watch import text_attentions, watched
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import call_of
from raymap.errors import DrawingError
from raymap.study.model import AttentionSettings, SamplerSettings


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
        size: tuple[int, int],
    ) -> None:
        """Look at how the base draws.

        Args:
            size: height and width of the images in pixels.
        """
        self._pipeline, self._store, self._encoder = pipeline, store, encoder
        self._sampler, self._settings, self._size, self._sides = sampler, settings, batch_size, size
        self._readings: dict[str, Reading] = {}
        self._family = family_of(pipeline)
        steps = self._read("").timesteps
        self._layers = tuple(text_attentions(denoiser_of(pipeline), self._family))
        self._grid = Grid(len(steps), min(settings.bins, len(steps)), settings.head_groups, len(self._layers))
        bins = range(self._grid.bins)
        self._timesteps = tuple(fmean(t for k, t in enumerate(steps) if self._grid.bin_of(k) == b) for b in bins)

    def unmoved(self, prompts: Sequence[str]) -> Compared:
        """Return the comparison of a batch that is proved to be the base's own: no shift, and no attention measured."""
        masks = class_masks([self._read(prompt) for prompt in prompts])
        items, _, classes = masks.shape
        grid, protocols = self._grid, len(self._settings.protocols)
        shifts = np.zeros((protocols, items, grid.layers, grid.bins, grid.groups, classes, 3), np.float32)
        shifts[..., 1] = np.nan
        return Compared(shifts, self._layers, self._timesteps, masks.sum(1).int().numpy())

    def compare(
        self, adapter: str, prompts: Sequence[str], seeds: tuple[int, ...]
    ) -> tuple[Compared, dict[str, torch.Tensor]]:
        """Denoise a batch under base and adapter, and reduce the differences of their attention to the prompts.

        The batch is padded by its last item, as drawing pads it. Beyond the memory of a plain run it needs that of the
        base's maps of one step, and of a few temporary maps of the largest layer, 4 · items · heads · positions ·
        tokens bytes each.

        Returns:
            The comparison, and the final latents (batch size, …) of `base`, and of `free` where it was asked for.

        Raises:
            DrawingError: a measurement is not finite, or the adapter reads a prompt in another number of tokens.
        """
        n, size, asked = len(prompts), self._size, self._settings.protocols
        padded = [*prompts, *[prompts[-1]] * (size - n)]
        seeds = (*seeds, *(seeds[-1],) * (size - n))
        readings = [self._read(prompt) for prompt in prompts]
        masks = class_masks(readings)
        shifts = Shifts(self._grid, masks.to(self._pipeline.device), asked)
        heat = Heat(list(prompts), readings, asked[0], self._sides, self._pipeline.device)
        items = slice(-size, n - size or None)  # the prompt's side of a guided batch is the last
        base = torch.empty(0)

        def arguments() -> dict[str, Any]:
            return call_of(self._pipeline, padded, seeds, self._sampler) | {"output_type": "latent"}

        def take(layer: int, maps: torch.Tensor) -> None:
            if maps.shape[-1] != masks.shape[1]:
                raise DrawingError(f"under {adapter}: prompts have {maps.shape[-1]} tokens, not {masks.shape[1]}")
            shifts.take(layer, maps)
            heat.take(shifts.passing, maps)

        def do(own: Pass) -> Any:
            nonlocal base
            if own.number:  # of guidance's other side
                return own.run()
            with watched(own.denoiser, self._family, items, take):
                if not own.adapted:
                    base = own.latents
                    shifts.pass_((), own.step)
                    return own.run()
                output = None
                once = (
                    own.step == 0 and "free" in asked
                )  # both protocols start from the same noise: one pass serves both
                if "forced" in asked and not once:
                    shifts.pass_(("forced",), own.step)
                    output = own.forward(base)
                if "free" in asked:
                    shifts.pass_(asked if once else ("free",), own.step)
                    output = own.run()
                return output

        drawn = lockstep(self._pipeline, self._encoder, self._store, adapter, arguments, do)
        means = shifts.means()
        if not torch.isfinite(means).all():
            raise DrawingError(f"under {adapter}: attention is not finite")
        counts = masks.sum(1).int().numpy()
        compared = Compared(means.cpu().numpy(), self._layers, self._timesteps, counts, heat.means())
        latents = {name: own[0] for name, own in zip(("base", "free"), drawn, strict=True)}
        return compared, {name: own for name, own in latents.items() if name in ("base", *asked)}

    def _read(self, prompt: str) -> Reading:
        if prompt not in self._readings:
            self._readings[prompt] = read_prompt(self._pipeline, self._store, self._sampler, prompt)
        return self._readings[prompt]
