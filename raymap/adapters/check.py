"""What an adapter file holds, what it changes, and what to be wary of: the findings of `raymap check`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from raymap.adapters.blocks import Block, Weights, blocks_of
from raymap.adapters.glance import Glance
from raymap.adapters.read import Read, read_adapter
from raymap.adapters.survival import sampled, surviving
from raymap.adapters.update import LowRank
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError
from raymap.study.adapter import KEPT


@dataclass(frozen=True)
class Finding:
    """One adapter; if it was refused, `problem` says why, and what is only known from reading it whole is empty.

    `seen` is what its header tells. `base` is the base that it was held against, `outline` whether only the
    architecture of that is here. `norm` is the Frobenius norm of all ΔW over that of the weights they change; None
    without updates, or without the base's weights. `weights` counts the updated weights, `vectors` those of learned
    tokens, `size` the numbers that the adapter holds. `survives` is the share of ΔW that is left where weights are
    stored in fewer bits, by format. `notes` say how its files were read, `warnings` what to be wary of.
    """

    seen: Glance
    base: str = ""
    outline: bool = False
    problem: str | None = None
    method: str = ""
    ranks: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    weights: int = 0
    vectors: int = 0
    size: int = 0
    norm: float | None = None
    blocks: tuple[Block, ...] = ()
    survives: Mapping[str, float] = field(default_factory=dict)
    triggers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def examine(
    path: Path,
    seen: Glance,
    skeleton: Skeleton,
    weights: Weights | None,
    prompts: Sequence[str],
    trigger: str | None,
) -> Finding:
    """Read one adapter and describe it.

    Args:
        seen: what its header tells.
        weights: returns the base's own, by name as in `skeleton.shapes`; None where they are not here.
        prompts: texts in which no trigger should occur by accident.
        trigger: a new name for the adapter's learned token.
    """
    try:
        read = read_adapter(path, skeleton, trigger)
    except InputError as error:
        return Finding(seen, problem=str(error).removeprefix(f"{path}: "), warnings=seen.warnings)
    updates = read.adapter.updates
    blocks = blocks_of(updates, weights, skeleton.family.stages)
    survives = {} if weights is None else surviving(updates, weights(sampled(updates)))
    low_rank = [update for update in updates.values() if isinstance(update, LowRank)]
    found = Finding(
        seen,
        method=read.method,
        ranks=tuple(sorted({u.down.shape[0] for u in low_rank})),
        alphas=tuple(sorted({round(u.scale * u.down.shape[0], 6) for u in low_rank})),
        weights=len(updates),
        vectors=sum(len(own) for token in read.adapter.tokens for own in token.vectors.values()),
        size=read.adapter.size,
        norm=_relative(blocks),
        blocks=blocks,
        survives=survives,
        triggers=tuple(token.trigger for token in read.adapter.tokens),
        notes=read.adapter.notes,
    )
    warnings = (*seen.warnings, *_warnings(read, found, skeleton, prompts), *_weakened(survives))
    return replace(found, warnings=warnings)


def _relative(blocks: Sequence[Block]) -> float | None:
    """Return the norm of a whole update relative to that of the weights that it changes."""
    parts = [block.whole for block in blocks if block.whole is not None]
    if not parts:
        return None
    whole = math.hypot(*parts)
    return math.hypot(*(block.norm for block in blocks)) / whole if whole else math.inf


def _warnings(read: Read, found: Finding, skeleton: Skeleton, prompts: Sequence[str]) -> list[str]:
    warnings = []
    for token in read.adapter.tokens:
        hit = next((p for p in prompts if token.trigger.casefold() in p.casefold()), None)
        if hit is not None:
            warnings.append(f"its trigger {token.trigger!r} matches inside the prompt {hit!r}")
        elif token.trigger.isalpha():
            warnings.append(f"its trigger {token.trigger!r} matches inside ordinary words; one like <…> would not")
        encoders = skeleton.family.learning(skeleton.parts.encoders)
        if lacking := [name for name in encoders if name not in token.vectors]:
            what = f"has no vectors for {' and '.join(lacking)}, which will read its trigger as text"
            warnings.append(f"its token {token.trigger!r} {what}; it may be for another base")
    if found.blocks and not any(block.norm for block in found.blocks):
        warnings.append("its update is zero: it changes nothing")
    if read.adapter.rows:
        warnings.append("it replaces the whole token embedding: every prompt may change")
    return warnings


def _weakened(survives: Mapping[str, float]) -> list[str]:
    """Return a warning where a 16-bit format would draw an adapter noticeably weaker than it is."""
    weak = [f"{kind} ({survives[kind]:.0%})" for kind in ("float16", "bfloat16") if survives.get(kind, 1) < KEPT]
    return [f"part of its update is lost in {', '.join(weak)}: draw it in a format that keeps more"] if weak else []
