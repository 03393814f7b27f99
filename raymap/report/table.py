"""A table as CSV, Markdown or LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from raymap.display.text import NOTHING, number

FORMATS = ("csv", "md", "latex")
SUFFIXES = {"csv": "csv", "md": "md", "latex": "tex"}
"""The endings of the files of each format."""
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Columns of texts or numbers with a caption.

    CSV holds all columns of `frame`, unrounded. Markdown and LaTeX show the `printed` ones, with as many decimals of a
    column of numbers as `digits` says.
    """

    caption: str
    frame: pl.DataFrame
    digits: dict[str, int]
    printed: tuple[str, ...]


def written(table: Table, kind: str) -> bytes:
    """Return a table as a file of one of FORMATS."""
    return {"csv": _csv, "md": _markdown, "latex": _latex}[kind](table).encode()


def _csv(table: Table) -> str:
    return table.frame.write_csv()


def _texts(table: Table) -> list[list[str]]:
    def text(name: str, value: Any) -> str:
        if value is None:
            return NOTHING
        return number(value, table.digits[name]) if name in table.digits else _line(str(value))

    return [[text(name, row[name]) for name in table.printed] for row in table.frame.iter_rows(named=True)]


def _line(text: str) -> str:
    """Return a text on one line, without characters that cannot be printed."""
    return "".join(c if c.isprintable() else " " for c in re.sub(r"\s+", " ", text))


def _markdown(table: Table) -> str:
    def cell(text: str) -> str:
        return re.sub(r"([\\`*_{}\[\]<>|#~!])", r"\\\1", text)

    rule = ["---:" if name in table.digits else "---" for name in table.printed]
    lines = [[cell(name) for name in table.printed], rule, *([cell(t) for t in row] for row in _texts(table))]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{cell(table.caption)}\n"


def _latex(table: Table) -> str:
    def cell(text: str) -> str:
        return "".join(LATEX.get(c, c) for c in text)

    align = "".join("r" if name in table.digits else "l" for name in table.printed)
    head = " & ".join(cell(name) for name in table.printed)
    rows = [" & ".join(cell(t) for t in row) + r" \\" for row in _texts(table)]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\caption{{{cell(table.caption)}}}",
            rf"\begin{{tabular}}{{{align}}}", r"\toprule", rf"{head} \\", r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}", r"\end{table}", "",
        ]
    )  # fmt: skip
