"""Where in an image each word of a prompt is attended to: maps of single tokens, under base and adapter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from raymap.drawing.attention.tokens import Reading

SIDE = 16
"""The maps of all layers are resized to so many positions along each side."""


@dataclass(frozen=True)
class TokenMaps:
    """Maps of the first image of each prompt in a batch, for the tokens of its words, in the order of the prompt.

    `items` are positions in the batch, `tokens` (one tuple per item) the tokenizer's pieces, `base` and `adapted`
    float32 (items, most tokens of a prompt, SIDE, SIDE): mean A over layers, heads and steps.
    """

    items: tuple[int, ...]
    tokens: tuple[tuple[str, ...], ...]
    base: np.ndarray
    adapted: np.ndarray


class Heat:
    """Accumulates token maps of the base and of the adapted model, on its own trajectory where it has one."""

    def __init__(
        self,
        prompts: list[str],
        readings: Sequence[Reading],
        adapted: str,
        size: tuple[int, int],
        device: torch.device,
    ) -> None:
        """Choose what to keep.

        Args:
            readings: how each prompt is read.
            adapted: the protocol whose maps are compared with the base's.
            size: height and width of the images, in any unit.
        """
        self._items = tuple(prompts.index(prompt) for prompt in dict.fromkeys(prompts))
        self._tokens = tuple(readings[item].pieces for item in self._items)
        self._positions = [list(readings[item].positions) for item in self._items]
        self._adapted, self._size = adapted, size
        self._width = max(len(pieces) for pieces in self._tokens)
        self._sums = torch.zeros(2, len(self._items), self._width, SIDE, SIDE, device=device)
        self._counts = [0, 0]

    def take(self, passing: tuple[str, ...], maps: torch.Tensor) -> None:
        """Add a layer's maps, float32 (items, heads, positions, tokens), whose positions fill the image's rectangle.

        Args:
            passing: the protocols to which the forward pass belongs; none for the base.
        """
        if (passing and self._adapted not in passing) or not self._width:
            return
        sides = rectangle(maps.shape[2], self._size)
        of = int(bool(passing))
        for k, (item, positions) in enumerate(zip(self._items, self._positions, strict=True)):
            if positions:
                words = maps[item, :, :, positions].mean(dim=0).mT.unflatten(-1, sides)
                resized = functional.interpolate(
                    words[None], (SIDE, SIDE), mode="bilinear", antialias=max(sides) > SIDE
                )
                self._sums[of, k, : len(positions)] += resized[0]
        self._counts[of] += 1

    def means(self) -> TokenMaps:
        """Return what was accumulated."""
        base, adapted = (part / max(1, n) for part, n in zip(self._sums.cpu().numpy(), self._counts, strict=True))
        return TokenMaps(self._items, self._tokens, base, adapted)


def rectangle(positions: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a feature map of so many positions: those nearest to an image's proportions."""
    wanted = math.log(size[0] / size[1])
    heights = [side for side in range(1, positions + 1) if positions % side == 0]
    height = min(heights, key=lambda side: abs(math.log(side * side / positions) - wanted))
    return height, positions // height
