"""The limits that a user sets for an audit. They are read before anything that could measure is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from raymap.errors import InputError

EXAMPLE = "write falls=0,fall=0.02,prompts=3, or only some of fall, falls, prompts, targets, e_sem and e_per"


@dataclass(frozen=True)
class AuditLimits:
    """What an adapter may reach at most over its non-target prompts, and one limit on its target prompts.

    Attributes:
        e_sem: mean E_sem, how far the CLIP score moves in either direction.
        e_per: mean E_per, how far the image moves.
        fall: by how much the CLIP score falls on average.
        falls: how many prompts' score fell beyond their margin.
        prompts: how many prompts shifted, in whatever way.
        targets: how many *target* prompts shifted.
    """

    e_sem: float | None = None
    e_per: float | None = None
    prompts: int | None = None
    fall: float | None = None
    falls: int | None = None
    targets: int | None = None

    @property
    def given(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def parse_limits(text: str) -> AuditLimits:
    """Read limits as `--fail-above` takes them: `falls=0,fall=0.02,prompts=3`, each at least 0.

    Raises:
        InputError: a name is unknown or repeated, or a value is not a number from 0.
    """
    where = f"--fail-above {text}"
    kinds: dict[str, Callable[[str], float]] = {
        "e_sem": float, "e_per": float, "prompts": int, "fall": float, "falls": int, "targets": int,
    }  # fmt: skip
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in kinds or name in found:
            raise InputError(
                where, f"{name!r} is given twice" if name in found else f"{name!r} is not a limit", EXAMPLE
            )
        try:
            found[name] = kinds[name](value)
        except ValueError:
            found[name] = math.nan
        if not 0 <= found[name] < math.inf:
            kind = "a whole number" if kinds[name] is int else "a number"
            raise InputError(where, f"{name} is {value!r}", f"give {kind} that is at least 0")
    return AuditLimits(**found)
