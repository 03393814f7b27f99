"""Where in an image each word of a prompt is attended to: maps of single tokens, under base and adapter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

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

    def __init__(self, prompts: list[str], tokens: list[tuple[str, ...]], adapted: str, device: torch.device) -> None:
        """Choose what to keep.

        Args:
            tokens: the pieces of each prompt's words.
            adapted: the protocol whose maps are compared with the base's.
        """
        self._items = tuple(prompts.index(prompt) for prompt in dict.fromkeys(prompts))
        self._tokens = tuple(tokens[item] for item in self._items)
        self._adapted = adapted
        self._width = max(len(pieces) for pieces in self._tokens)
        self._sums = torch.zeros(2, len(self._items), self._width, SIDE, SIDE, device=device)
        self._counts = [0, 0]

    def take(self, passing: tuple[str, ...], maps: torch.Tensor) -> None:
        """Add a layer's maps, float32 (items, heads, positions, tokens), of square feature maps.

        Args:
            passing: the protocols to which the forward pass belongs; none for the base.
        """
        if (passing and self._adapted not in passing) or not self._width:
            return
        words = maps[list(self._items), :, :, 1 : 1 + self._width].mean(dim=1).mT  # the begin token comes first
        side = round(words.shape[-1] ** 0.5)
        square = words.unflatten(-1, (side, side))
        of = int(bool(passing))
        self._sums[of] += functional.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=side > SIDE)
        self._counts[of] += 1

    def means(self) -> TokenMaps:
        """Return what was accumulated."""
        base, adapted = (part / max(1, n) for part, n in zip(self._sums.cpu().numpy(), self._counts, strict=True))
        return TokenMaps(self._items, self._tokens, base, adapted)
