"""Where an adapter's update lies: its norm in each block of the base."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from raymap.adapters.update import Additive, Update
from raymap.base.parts import is_text

Weights = Callable[[Iterable[str]], Mapping[str, torch.Tensor]]
"""Returns the base's weights of these names, in the format in which they are stored."""
_BLOCK = re.compile(r"[^.]+\.(?P<block>[a-z_]*blocks?\.\d+|[a-z_]*(?:blocks?|layers|refiner)(?:\.\d+)?)\.")
REST = "rest"


@dataclass(frozen=True)
class Block:
    """One block of a base: the Frobenius norm of all ΔW in it, and that of the weights that they change.

    `whole` is None where the base's weights are not here.
    """

    name: str
    norm: float
    whole: float | None

    @property
    def share(self) -> float | None:
        """The norm of the update relative to that of the weights."""
        if self.whole is None:
            return None
        return self.norm / self.whole if self.whole else math.inf


def block_of(weight: str) -> str:
    """Return the block to which a weight belongs: a text encoder is one, and so is each item of a denoiser's lists."""
    if is_text(weight):
        return weight.partition(".")[0]
    match = _BLOCK.match(weight)
    return match["block"] if match else REST


def blocks_of(
    updates: Mapping[str, Update], weights: Weights | None, stages: tuple[str, ...] = ()
) -> tuple[Block, ...]:
    """Return the blocks that an adapter changes, text encoders last.

    Without the base's weights, an update that depends on them has no norm, and then there are no blocks.

    Args:
        stages: the denoiser's lists of blocks in the order of a forward pass, as `Family.stages`.
    """
    if weights is None and not all(isinstance(update, Additive) for update in updates.values()):
        return ()
    names: dict[str, list[str]] = {}
    for name in updates:
        names.setdefault(block_of(name), []).append(name)
    blocks = []
    for block, own in sorted(names.items(), key=lambda item: _order(item[0], stages)):
        base = {} if weights is None else weights(own)
        norm = math.hypot(*(_norm(updates[name], base.get(name)) for name in own))
        whole = None if weights is None else math.hypot(*(_frobenius(base[name]) for name in own))
        blocks.append(Block(block, norm, whole))
    return tuple(blocks)


def _norm(update: Update, weight: torch.Tensor | None) -> float:
    if weight is None:
        assert isinstance(update, Additive)
        return update.norm(torch.empty(update.flat))
    return update.norm(weight.float())


def _frobenius(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.double()))


def _order(block: str, stages: tuple[str, ...]) -> tuple[int, str, int]:
    """Return a block's sort key: its list, and its number in it; what is in no list follows, and text encoders last."""
    stem, _, number = block.partition(".")
    places = (*stages, *([stem] if stem not in stages and block != REST and not is_text(block) else []), REST, "text")
    place = places.index("text" if is_text(block) else stem)
    return place, stem, int(number) if number.isdigit() else 0
