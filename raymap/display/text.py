"""Texts to show: other people's texts (prompts, names, paths) made safe, and numbers and estimates in print."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape

WIDTH = 80
"""How many characters of a text are shown."""
LONG = 600
"""How many characters of a path or of an error are shown."""
NOTHING = "–"
"""What is shown in the place of a number that there is not."""
_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def plain(text: str) -> str:
    """Return a text as one line without control characters, lone surrogates and overrides of the writing direction.

    The result is valid XML 1.0 once it is escaped, and cannot steer a terminal; scripts and emoji stay as they are.
    """
    kept = []
    for character in text:
        kind = unicodedata.category(character)
        if kind in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif (
            kind != "Cs" and unicodedata.bidirectional(character) not in _DIRECTIONS and character not in "\ufffe\uffff"
        ):
            kept.append(character)
    return " ".join("".join(kept).split())


def cut(text: str, width: int = WIDTH) -> str:
    """Return a text as `plain` does, cut to at most `width` characters."""
    line = plain(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def shown(text: str, width: int = WIDTH) -> str:
    """Return a text for a rich console: cut, and with its square brackets escaped."""
    return escape(cut(text, width))


def number(value: float | None, digits: int = 4, signed: bool = False) -> str:
    """Return a number with so many decimals; with `signed`, one that prints above 0 has a plus sign."""
    if value is None:
        return NOTHING
    sign = "+" if signed and round(value, digits) > 0 else ""
    return f"{value:{sign}.{digits}f}"


def significant(value: float | None, signed: bool = False) -> str:
    """Return a number of any scale with four significant digits; with `signed`, a positive one has a plus sign."""
    return NOTHING if value is None else f"{value:{'+' if signed else ''}.4g}"


def estimate(held: Mapping[str, Any] | None, digits: int = 4, signed: bool = False) -> str:
    """Return an estimate's `value`, followed by its interval [`low`, `high`] if it has one."""
    return _estimate(held, lambda value: number(value, digits, signed))


def scaled(held: Mapping[str, Any] | None, signed: bool = False) -> str:
    """Return an estimate of any scale as `estimate` does, with four significant digits."""
    return _estimate(held, lambda value: significant(value, signed))


def _estimate(held: Mapping[str, Any] | None, shown: Callable[[float | None], str]) -> str:
    value = shown(held["value"] if held else None)
    return value if not held or held["low"] is None else f"{value} [{shown(held['low'])}, {shown(held['high'])}]"
