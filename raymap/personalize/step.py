"""What a training says of itself on its way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Where a training is: optimizer steps done; each subject's mean loss over the steps since the last report."""

    done: int
    losses: tuple[float, ...]
