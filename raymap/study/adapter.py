"""What a run knows of its adapters and its base: their names, and what the adapters are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raymap.errors import InputError
from raymap.study.interventions import MARK

BASE = "base"
"""What the unadapted model is called where an adapter's name is expected."""

KEPT = 0.9
"""The share of an adapter's update that a number format has to keep, for the adapter not to be drawn weakened."""


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter as a run knows it; `sha256` is the digest of its weight file."""

    name: str
    method: str
    subject: str
    subject_category: str
    sha256: str


def check_names(adapters: Sequence[str]) -> None:
    """Check the names of a study's adapters.

    Raises:
        InputError: one that two adapters have, or that a run uses for its base or for variants.
    """
    for name in adapters:
        if adapters.count(name) > 1 or name == BASE:
            raise InputError(f"adapter {name}", "is a name that is taken", "rename the subject or the adapter")
        if MARK in name:
            problem = f"has {MARK!r} in its name, which only the names of variants have"
            raise InputError(f"adapter {name}", problem, "give its entry a `name:`")
