"""Reduces attention maps of base and adapted model on the device, one layer and one denoising step at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

MEASURES = ("delta", "attention", "js")
"""Σ |ΔA|, Σ A of the base and the Jensen-Shannon divergence's share, of a token class, averaged over positions."""

CACHED = 2**16
"""How many numbers a CPU compares at a time: temporary tensors then stay in its cache (three times as fast)."""


def jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return every token's share of the Jensen-Shannon divergence (Lin 1991), in bits; their sum is from 0 to 1.

    With m = ½(p + q) and r = (q − p)/(2m) a share is ½m[(1 + r)log(1 + r) + (1 − r)log(1 − r)]. It is computed as
    ½m[log(1 − r²) + 2r·artanh(r)], so that small shifts lose no digits.
    """
    m = (one + other) / 2
    r = ((other - one) / (2 * m).clamp(min=torch.finfo(m.dtype).tiny)).clamp(-1 + 1e-7, 1 - 1e-7)
    return m * (torch.log1p(-r * r) + 2 * r * torch.atanh(r)) / (2 * math.log(2))


@dataclass(frozen=True)
class Grid:
    """What maps are reduced to: denoising steps are divided into `bins`, a layer's heads into `groups`, in order."""

    steps: int
    bins: int
    groups: int
    layers: int

    def bin_of(self, step: int) -> int:
        """Return the bin of a denoising step, 0 to steps - 1; bins differ by at most one step."""
        return step * self.bins // self.steps

    def steps_in(self, number: int) -> int:
        """Return how many steps a bin holds."""
        return sum(self.bin_of(step) == number for step in range(self.steps))


class Shifts:
    """Accumulates the differences of two models' attention, keeping the base's maps of one denoising step at a time.

    The protocols are `free` (each model on its own trajectory, as in the paper) and `forced` (the adapted model on the
    base's latents). `pass_` announces the next forward pass: one of the base, whose maps are kept, or one of the
    adapted model under some of the protocols, whose maps are compared with them.
    """

    def __init__(self, grid: Grid, masks: torch.Tensor, protocols: tuple[str, ...]) -> None:
        self._grid, self._masks, self._protocols = grid, masks, protocols
        self._base: dict[int, torch.Tensor] = {}
        self._attention: dict[int, torch.Tensor] = {}
        self._step = 0
        self.passing: tuple[str, ...] = ()
        items, _, classes = masks.shape
        shape = (len(protocols), items, grid.layers, grid.bins, grid.groups, classes, len(MEASURES))
        self._sums = torch.zeros(shape, device=masks.device)

    def pass_(self, protocols: tuple[str, ...], step: int) -> None:
        """Announce the next forward pass: of the base (no protocol), or of the adapted model under protocols."""
        self.passing, self._step = protocols, step

    def take(self, layer: int, maps: torch.Tensor) -> None:
        """Keep or compare a layer's maps, float32 (items, heads, positions, tokens)."""
        if not self.passing:
            self._base[layer] = maps
            self._attention[layer] = self._by_class(maps.mean(dim=2))
            return
        delta, js = (self._by_class(x) for x in _differences(self._base[layer], maps))
        measures = torch.stack([delta, self._attention[layer], js], dim=-1)
        for protocol in self.passing:
            self._sums[self._protocols.index(protocol), :, layer, self._grid.bin_of(self._step)] += measures

    def _by_class(self, by_head: torch.Tensor) -> torch.Tensor:
        """Average (items, heads, tokens) over the heads of a group and sum over the tokens of a class."""
        groups = torch.stack([part.mean(dim=1) for part in by_head.tensor_split(self._grid.groups, dim=1)], dim=1)
        return groups @ self._masks

    def means(self) -> torch.Tensor:
        """Return means over the steps of each bin, float32 (protocols, items, layers, bins, groups, classes, 3)."""
        counts = torch.tensor([self._grid.steps_in(k) for k in range(self._grid.bins)], device=self._sums.device)
        return self._sums / counts.view(-1, 1, 1, 1)


def _differences(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return |ΔA| and the divergence's shares, each averaged over positions: (items, heads, tokens)."""
    shape = one.shape
    rows = max(1, CACHED // shape[2:].numel()) if one.device.type == "cpu" else len(one) * shape[1]
    parts = [
        ((b - a).abs_().mean(dim=1), jensen_shannon(a, b).mean(dim=1))
        for a, b in zip(one.flatten(0, 1).split(rows), other.flatten(0, 1).split(rows), strict=True)
    ]
    delta, js = (torch.cat(part).view(*shape[:2], shape[3]) for part in zip(*parts, strict=True))
    return delta, js
