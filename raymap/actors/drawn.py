"""What a generator says of a batch; the scorer reads it, and needs nothing else of a generator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drawn:
    """How a batch was drawn: which pictures are proved to be the base's own, on what device, in how many seconds."""

    unchanged: tuple[bool, ...]
    device: str
    seconds: dict[str, float]
