"""The paper's Tables 1 to 3 from a run's statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from raymap.analysis.estimates import Crossed
from raymap.analysis.numerics.crossed import over
from raymap.analysis.statistics import RankedPrompt, Statistics
from raymap.analysis.why.statistics import AttentionPrompt
from raymap.report.table import Table
from raymap.results import Run


def tables(run: Run) -> dict[str, Table]:
    """Return the paper's tables by their file names; the third only if attention was measured."""
    found = {"table_1": _methods(run.statistics), "table_2": _prompts(run.statistics)}
    if run.attention and run.attention["table_3"]:
        found["table_3"] = _attention(run.attention["table_3"])
    return found


def _methods(statistics: Statistics) -> Table:
    rows = [
        {
            "method": row["method"], "subject_category": row["subject_category"], "subjects": row["subjects"],
            **_spread("e_sem", row["e_sem"]), **_spread("e_sem_signed", row["e_sem_signed"]),
            **_spread("e_per", row["e_per"]), **_spread("e", row["e"]),
            "e_std": row["e_std"], "prompts": row["e_sem"]["n"], "intervals": over(row["e_sem"]),
        }
        for row in statistics["table_1"]
    ]  # fmt: skip
    caption = "Disruption by method and subject category: means over non-target prompts and subjects."
    digits = {f"{name}{end}": 4 for name in ("e_sem", "e_sem_signed") for end in ("", "_low", "_high")}
    digits |= {f"{name}{end}": 3 for name in ("e_per", "e") for end in ("", "_low", "_high")} | {"e_std": 3}
    printed = (
        "method", "subject_category", "subjects", "e_sem", "e_sem_low", "e_sem_high", "e_sem_signed", "e_per", "e",
        "e_std", "intervals",
    )  # fmt: skip
    return Table(caption, _frame(rows, ("method", "subject_category", "intervals"), printed), digits, printed)


def _prompts(statistics: Statistics) -> Table:
    rows = [_ranked("most fragile", row) for row in statistics["most_fragile"]]
    rows += [_ranked("most robust", row) for row in statistics["most_robust"]]
    printed = ("list", "prompt", "prompt_category", "e_sem", "e_per", "stability")
    caption = (
        "The most fragile and the most robust prompts. Stability: the share of resamples of subjects that list the "
        "prompt again."
    )
    texts = ("list", "prompt_id", "prompt", "prompt_category")
    columns = (*texts, "e_sem", "e_per", "subjects", "stability")
    return Table(caption, _frame(rows, texts, columns), {"e_sem": 4, "e_per": 3, "stability": 2}, printed)


def _ranked(name: str, row: RankedPrompt) -> dict[str, Any]:
    return {
        "list": name, "prompt_id": row["prompt_id"], "prompt": row["prompt"], "prompt_category": row["prompt_category"],
        "e_sem": row["e_sem"], "e_per": row["e_per"], "subjects": row["subjects"], "stability": row["stability"],
    }  # fmt: skip


def _attention(rows: Sequence[AttentionPrompt]) -> Table:
    shifts = {name: f"delta_e4 {name}" for name in rows[0]["delta_e4"]}
    found = [
        {"prompt_id": row["prompt_id"], "prompt": row["prompt"], "prompt_category": row["prompt_category"],
         "protocol": row["protocol"], "e_sem": row["e_sem"]}
        | {column: row["delta_e4"].get(name) for name, column in shifts.items()}
        for row in rows
    ]  # fmt: skip
    caption = "Mean |ΔA| · 10⁴ of cross-attention by prompt and adapter, the most disrupted prompt first."
    printed = ("prompt", "e_sem", *shifts.values())
    return Table(caption, pl.DataFrame(found), {"e_sem": 4} | dict.fromkeys(shifts.values(), 2), printed)


def _spread(name: str, estimate: Crossed) -> dict[str, float | None]:
    return {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}


def _frame(rows: Sequence[dict[str, Any]], texts: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """Return rows as a frame that has its columns even if there is no row."""
    if rows:
        return pl.DataFrame(rows, infer_schema_length=None)
    return pl.DataFrame(schema={name: pl.String if name in texts else pl.Float64 for name in columns})
