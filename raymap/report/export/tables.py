"""The paper's Tables 1 to 3, and the numbers behind Figures 1 to 3, as CSV, Markdown or LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from raymap.analysis.numerics.crossed import ALONE
from raymap.report.source import Run

FORMATS = ("csv", "md", "latex")
SUFFIXES = {"csv": "csv", "md": "md", "latex": "tex"}
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A caption, and columns of text or numbers; `digits` are decimals of each number column in print.

    CSV holds every column as it is; Markdown and LaTeX show `printed` ones.
    """

    caption: str
    frame: pl.DataFrame
    digits: dict[str, int]
    printed: tuple[str, ...]


def tables(run: Run) -> dict[str, Table]:
    """Return file name -> table, of the paper's tables; the third where attention was measured."""
    found = {"table_1": _methods(run.statistics), "table_2": _prompts(run.statistics)}
    return found | ({"table_3": _attention(run.attention["table_3"])} if run.attention.get("table_3") else {})


def figure_data(run: Run) -> dict[str, Table]:
    """Return file name -> the numbers that a figure shows: too many for print, so for CSV."""
    return {
        "figure_1": _regions(run.statistics),
        "figure_2": _map(run.cells),
        "figure_3": _categories(run.statistics),
    }


def written(table: Table, kind: str) -> bytes:
    """Return a table as a file of one of FORMATS."""
    return {"csv": _csv, "md": _markdown, "latex": _latex}[kind](table).encode()


def _methods(statistics: dict[str, Any]) -> Table:
    rows = [
        {"method": r["method"], "subject_category": r["subject_category"], "subjects": r["subjects"]}
        | {k: v for name in ("e_sem", "e_sem_signed", "e_per", "e") for k, v in _spread(name, r[name]).items()}
        | {"e_std": r["e_std"], "prompts": r["e_sem"]["n"], "intervals": _over(r["e_sem"])}
        for r in statistics["table_1"]
    ]
    caption = "Disruption by method and subject category: means over non-target prompts and subjects."
    digits = {f"{name}{end}": 4 for name in ("e_sem", "e_sem_signed") for end in ("", "_low", "_high")}
    digits |= {f"{name}{end}": 3 for name in ("e_per", "e") for end in ("", "_low", "_high")} | {"e_std": 3}
    printed = (
        "method",
        "subject_category",
        "subjects",
        "e_sem",
        "e_sem_low",
        "e_sem_high",
        "e_sem_signed",
        "e_per",
        "e",
        "e_std",
        "intervals",
    )
    return Table(caption, _frame(rows, ("method", "subject_category", "intervals"), printed), digits, printed)


def _prompts(statistics: dict[str, Any]) -> Table:
    columns = ("prompt_id", "prompt", "prompt_category", "e_sem", "e_per", "subjects", "stability")
    rows = [
        {"list": name} | {column: r[column] for column in columns}
        for name, key in (("most fragile", "most_fragile"), ("most robust", "most_robust"))
        for r in statistics[key]
    ]
    printed = ("list", "prompt", "prompt_category", "e_sem", "e_per", "stability")
    caption = (
        "The most fragile and the most robust prompts; stability: share of resamples of subjects that list it again."
    )
    texts = ("list", "prompt_id", "prompt", "prompt_category")
    return Table(caption, _frame(rows, texts, (*texts, *columns)), {"e_sem": 4, "e_per": 3, "stability": 2}, printed)


def _attention(rows: list[dict[str, Any]]) -> Table:
    texts = ("prompt_id", "prompt", "prompt_category", "protocol")
    shifts = {name: f"delta_e4 {name}" for name in rows[0]["delta_e4"]}
    found = [
        {name: r[name] for name in (*texts, "e_sem")}
        | {shown: r["delta_e4"].get(name) for name, shown in shifts.items()}
        for r in rows
    ]
    caption = "Mean |ΔA| · 10⁴ of cross-attention by prompt and adapter, the most disrupted prompt first."
    printed = ("prompt", "e_sem", *shifts.values())
    return Table(caption, pl.DataFrame(found), {"e_sem": 4} | dict.fromkeys(shifts.values(), 2), printed)


def _regions(statistics: dict[str, Any]) -> Table:
    printed = ("adapter", "method", "subject_category", "e_sem", "e_per", "region")
    rows = [{name: r[name] for name in printed} for r in statistics["regions"]]
    floor = statistics["noise_floor"]
    known = (
        f"; thresholds {floor['tau_sem']['value']:.4f} and {floor['tau_per']['value']:.3f}" if floor["pairs"] else ""
    )
    caption = f"Mean E_sem and E_per of each adapter over non-target prompts{known}."
    return Table(caption, _frame(rows, printed, printed), {"e_sem": 4, "e_per": 3}, printed)


def _map(cells: pl.DataFrame) -> Table:
    printed = ("prompt", "adapter", "e_sem", "e_sem_signed", "e_per", "entanglement")
    digits = {"e_sem": 4, "e_sem_signed": 4, "e_per": 3, "entanglement": 3}
    return Table("The entanglement map, a row a cell.", cells, digits, printed)


def _categories(statistics: dict[str, Any]) -> Table:
    rows = [
        {"subject_category": r["subject_category"], "prompt_category": r["prompt_category"]}
        | _spread("e_sem", r["e_sem"])
        | _spread("e_per", r["e_per"])
        | {"intervals": _over(r["e_sem"])}
        for r in statistics["category_by_category"]
    ]
    printed = (
        "subject_category",
        "prompt_category",
        "e_sem",
        "e_sem_low",
        "e_sem_high",
        "e_per",
        "e_per_low",
        "e_per_high",
        "intervals",
    )
    digits = {name: 4 if name.startswith("e_sem") else 3 for name in printed[2:-1]}
    caption = "Mean E_sem and E_per of each subject category on each prompt category."
    return Table(caption, _frame(rows, (*printed[:2], "intervals"), printed), digits, printed)


def _spread(name: str, estimate: dict[str, Any]) -> dict[str, float | None]:
    return {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}


def _over(estimate: dict[str, Any]) -> str | None:
    """Return what an estimate's interval generalises over, where it has one."""
    return None if estimate["low"] is None else ALONE.get(estimate["method"], "over prompts and subjects")


def _frame(rows: list[dict[str, Any]], texts: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """Return rows as a frame that has its columns even where there is no row."""
    if rows:
        return pl.DataFrame(rows, infer_schema_length=None)
    return pl.DataFrame(schema={name: pl.String if name in texts else pl.Float64 for name in dict.fromkeys(columns)})


def _csv(table: Table) -> str:
    return table.frame.write_csv()


def _texts(table: Table) -> list[list[str]]:
    def text(name: str, value: Any) -> str:
        if value is None:
            return "–"
        return f"{value:.{table.digits[name]}f}" if name in table.digits else _line(str(value))

    return [[text(name, row[name]) for name in table.printed] for row in table.frame.iter_rows(named=True)]


def _line(text: str) -> str:
    """Return a text on one line, without characters that are no print."""
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
