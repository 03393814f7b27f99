"""Texts of others (prompts, names, paths), made safe to show: on a terminal, in a table, in XML."""

from __future__ import annotations

import unicodedata

from rich.markup import escape

WIDTH = 80
_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def plain(text: str) -> str:
    """Return a text as one line without control characters, lone surrogates and overrides of writing direction.

    What is left is valid XML 1.0 once it is escaped, and steers no terminal; scripts and emoji stay as they are.
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
    """Return a text plain and at most `width` characters long."""
    line = plain(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def significant(value: float | None, signed: bool = False) -> str:
    """Return a number of any scale with four significant digits; a dash where there is none."""
    return "–" if value is None else f"{value:{'+' if signed else ''}.4g}"


def shown(text: str, width: int = WIDTH) -> str:
    """Return a text for a rich console: cut, its square brackets escaped."""
    return escape(cut(text, width))
