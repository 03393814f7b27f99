"""What a training reports while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """How far a training is: optimizer steps done, each subject's mean loss over the steps since the last report."""

    done: int
    losses: tuple[float, ...]
