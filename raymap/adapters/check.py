"""What an adapter file holds, what it changes, and what to be wary of: the rows of `raymap check`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from raymap.adapters.read import Read, read_adapter
from raymap.adapters.survival import surviving
from raymap.adapters.update import LowRank
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError
from raymap.study.adapter import KEPT

TRAINED_FOR = ("ss_base_model_version", "ss_sd_model_name", "modelspec.architecture", "base_model")


@dataclass(frozen=True)
class Finding:
    """One adapter's row; if it was refused, `problem` says why and the rest is empty.

    `norm` is the Frobenius norm of all ΔW over that of the weights they change; None without updates, or
    without the base. `weights` counts the updated weights, `size` the numbers that the adapter holds. `survives` is the
    share of ΔW that is left where weights are stored in fewer bits, by format.
    """

    path: Path
    problem: str | None = None
    method: str = ""
    ranks: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    weights: int = 0
    size: int = 0
    norm: float | None = None
    survives: Mapping[str, float] = field(default_factory=dict)
    triggers: tuple[str, ...] = ()
    trained_for: str = ""
    licence: str = ""
    consent: str = ""
    warnings: tuple[str, ...] = ()


def examine(
    path: Path,
    skeleton: Skeleton,
    weights: Mapping[str, torch.Tensor] | None,
    prompts: Sequence[str],
    trigger: str | None,
) -> Finding:
    """Read one adapter and describe it.

    Args:
        weights: the base's own, by name as in `skeleton.shapes`; None where they are not here.
        prompts: texts in which no trigger should occur by accident.
        trigger: a new name for the adapter's learned token.
    """
    try:
        read = read_adapter(path, skeleton, trigger)
    except InputError as error:
        return Finding(path, problem=str(error).removeprefix(f"{path}: "))
    adapter, norm = read.adapter, None if weights is None else _norm(read, weights)
    survives = {} if weights is None else surviving(adapter.updates, weights)
    low_rank = [u for u in adapter.updates.values() if isinstance(u, LowRank)]
    return Finding(
        path,
        method=read.method,
        ranks=tuple(sorted({u.down.shape[0] for u in low_rank})),
        alphas=tuple(sorted({round(u.scale * u.down.shape[0], 6) for u in low_rank})),
        weights=len(adapter.updates),
        size=adapter.size,
        norm=norm,
        survives=survives,
        triggers=tuple(t.trigger for t in adapter.tokens),
        trained_for=read.said(TRAINED_FOR),
        licence=read.licence,
        consent=read.consent,
        warnings=(*_warnings(read, norm, prompts), *_weakened(survives)),
    )


def _norm(read: Read, weights: Mapping[str, torch.Tensor]) -> float | None:
    updates = read.adapter.updates
    if not updates:
        return None
    changed = math.hypot(*(u.norm(weights[name]) for name, u in updates.items()))
    whole = math.hypot(*(float(torch.linalg.norm(weights[name].double())) for name in updates))
    return changed / whole if whole else math.inf


def _warnings(read: Read, norm: float | None, prompts: Sequence[str]) -> list[str]:
    warnings = []
    for token in read.adapter.tokens:
        hit = next((p for p in prompts if token.trigger.casefold() in p.casefold()), None)
        if hit is not None:
            warnings.append(f"its trigger {token.trigger!r} matches inside the prompt {hit!r}")
        elif token.trigger.isalpha():
            warnings.append(f"its trigger {token.trigger!r} matches inside ordinary words; one like <…> would not")
    if norm == 0:
        warnings.append("its update is zero: it changes nothing")
    if read.adapter.rows:
        warnings.append("it replaces the whole token embedding: every prompt may change")
    return warnings


def _weakened(survives: Mapping[str, float]) -> list[str]:
    """Return a warning where a 16-bit format would draw an adapter noticeably weaker than it is."""
    weak = [f"{kind} ({survives[kind]:.0%})" for kind in ("float16", "bfloat16") if survives.get(kind, 1) < KEPT]
    return [f"part of its update is lost in {', '.join(weak)}: draw it in a format that keeps more"] if weak else []
