"""What an adapter file holds, what it changes, and what to be wary of: the rows of `raymap check`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from raymap.adapters.read import Read, read_adapter
from raymap.adapters.update import LowRank
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError

TRAINED_FOR = ("ss_base_model_version", "ss_sd_model_name", "modelspec.architecture", "base_model")


@dataclass(frozen=True)
class Finding:
    """One adapter's row; if it was refused, `problem` says why and the rest is empty.

    `norm` is the Frobenius norm of all ΔW over that of the weights they change; None without updates, or
    without the base. `weights` counts the updated weights, `size` the numbers that the adapter holds.
    """

    path: Path
    problem: str | None = None
    method: str = ""
    ranks: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    weights: int = 0
    size: int = 0
    norm: float | None = None
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
    low_rank = [u for u in adapter.updates.values() if isinstance(u, LowRank)]
    return Finding(
        path,
        method=read.method,
        ranks=tuple(sorted({u.down.shape[0] for u in low_rank})),
        alphas=tuple(sorted({round(u.scale * u.down.shape[0], 6) for u in low_rank})),
        weights=len(adapter.updates),
        size=adapter.size,
        norm=norm,
        triggers=tuple(t.trigger for t in adapter.tokens),
        trained_for=read.said(TRAINED_FOR),
        licence=read.licence,
        consent=read.consent,
        warnings=tuple(_warnings(read, norm, prompts)),
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
