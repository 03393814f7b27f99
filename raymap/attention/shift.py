"""Reduces attention maps of base and adapted model, a layer and a denoising step at a time, on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

MEASURES = ("delta", "attention", "js")
"""Σ |ΔA|, Σ A of the base and the Jensen-Shannon divergence's share, of a token class, averaged over positions."""


def jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return every token's share of the Jensen-Shannon divergence (Lin 1991), in bits; their sum is from 0 to 1.

    With m = ½(p + q) and r = (q − p)/(2m) a share is ½m[(1 + r)log(1 + r) + (1 − r)log(1 − r)], which is written so
    that small shifts lose no digits: ½m[log(1 − r²) + 2r·artanh(r)].
    """
    m = (one + other) / 2
    r = ((other - one) / (2 * m).clamp(min=torch.finfo(m.dtype).tiny)).clamp(-1 + 1e-7, 1 - 1e-7)
    return m * (torch.log1p(-r * r) + 2 * r * torch.atanh(r)) / (2 * math.log(2))


@dataclass(frozen=True)
class Grid:
    """The shape of what is reduced to: denoising steps fall into `bins`, a layer's heads into `groups`, in order."""

    steps: int
    bins: int
    groups: int
    layers: int

    def bin_of(self, step: int) -> int:
        """Return the bin of a denoising step, 0 to steps - 1; bins differ by one step at most."""
        return step * self.bins // self.steps

    def steps_in(self, number: int) -> int:
        """Return how many steps a bin holds."""
        return sum(self.bin_of(step) == number for step in range(self.steps))


class Shifts:
    """Accumulates what two models' attention differs by. Holds the base's maps of one denoising step, no more.

    `protocols` are `free` (each model on its own trajectory: the paper's) and `forced` (the adapted model on the base's
    latents). `pass_` says what the next forward pass is: of the base, whose maps are kept, or of the adapted model
    under one of the protocols, whose maps are compared with them.
    """

    def __init__(self, grid: Grid, masks: torch.Tensor, protocols: tuple[str, ...]) -> None:
        self._grid, self._masks, self._protocols = grid, masks, protocols
        self._base: dict[int, torch.Tensor] = {}
        self._at: tuple[str | None, int] = (None, 0)
        items, _, classes = masks.shape
        shape = (len(protocols), items, grid.layers, grid.bins, grid.groups, classes, len(MEASURES))
        self._sums = torch.zeros(shape, device=masks.device)

    @property
    def protocol(self) -> str | None:
        """What the forward pass at hand is: of the base (None), or of the adapted model under a protocol."""
        return self._at[0]

    def pass_(self, protocol: str | None, step: int) -> None:
        """Say what the next forward pass is: of the base (None), or of the adapted model under a protocol."""
        self._at = (protocol, step)

    def take(self, layer: int, maps: torch.Tensor) -> None:
        """Keep or compare a layer's maps, float32 (items, heads, positions, tokens)."""
        protocol, step = self._at
        if protocol is None:
            self._base[layer] = maps
            return
        base = self._base[layer]
        measured = ((maps - base).abs(), base, jensen_shannon(base, maps))
        found = torch.stack([self._by_class(x) for x in measured], dim=-1)
        self._sums[self._protocols.index(protocol), :, layer, self._grid.bin_of(step)] += found

    def _by_class(self, values: torch.Tensor) -> torch.Tensor:
        """Average over positions and the heads of a group, and sum over the tokens of a class."""
        by_head = values.mean(dim=2)  # (items, heads, tokens)
        groups = torch.stack([part.mean(dim=1) for part in by_head.tensor_split(self._grid.groups, dim=1)], dim=1)
        return groups @ self._masks

    def means(self) -> torch.Tensor:
        """Return means over the steps of each bin, float32 (protocols, items, layers, bins, groups, classes, 3)."""
        counts = torch.tensor([self._grid.steps_in(k) for k in range(self._grid.bins)], device=self._sums.device)
        return self._sums / counts.view(-1, 1, 1, 1)
