"""What a run knows of its adapters and its base: their names, and what the adapters are about."""

from __future__ import annotations

from dataclasses import dataclass

BASE = "base"
"""What the unadapted model is called where an adapter's name is expected."""


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter as a run knows it; `sha256` is the digest of its weight file."""

    name: str
    method: str
    subject: str
    subject_category: str
    sha256: str


KEPT = 0.9
"""The share of an adapter's update that a number format has to keep, for the adapter not to be drawn weakened."""
