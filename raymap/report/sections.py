"""What the page's static parts show: scatter, matrix, tables, prompt cards, adapter cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.ticker import MaxNLocator

from raymap.analysis.map import CONTROL
from raymap.report.source import Run
from raymap.report.thumbnails import Gallery
from raymap.study.suite import CATEGORIES

CARDS = 6
"""Prompts of the fragile and of the robust list that are shown with pictures."""
LICENCE = ("licence", "license", "modelspec.license")
"""What cards and files in the wild call it."""
PLOT = (640, 400)
MARGIN = {"left": 62, "right": 16, "top": 18, "bottom": 46}


def scatter(run: Run) -> dict[str, Any]:
    """Return Figure 1 in pixels: a point an adapter, thresholds, ticks, names of the four regions."""
    rows = [row for row in run.statistics["regions"] if None not in (row["e_sem"], row["e_per"])]
    floor = run.statistics["noise_floor"]
    tau = {name: (floor[f"tau_{name}"] or {}).get("value") for name in ("sem", "per")}
    x = _Axis([r["e_sem"] for r in rows], tau["sem"], MARGIN["left"], PLOT[0] - MARGIN["right"])
    y = _Axis([r["e_per"] for r in rows], tau["per"], PLOT[1] - MARGIN["bottom"], MARGIN["top"])
    return {
        "width": PLOT[0], "height": PLOT[1], "margin": MARGIN,
        "points": [row | {"x": x.at(row["e_sem"]), "y": y.at(row["e_per"])} for row in rows],
        "x_ticks": x.ticks, "y_ticks": y.ticks,
        "tau_x": None if tau["sem"] is None else x.at(tau["sem"]),
        "tau_y": None if tau["per"] is None else y.at(tau["per"]),
        "tau": tau,
    }  # fmt: skip


class _Axis:
    """A linear scale from 0 to beyond the largest value and the threshold."""

    def __init__(self, values: Sequence[float], tau: float | None, start: float, end: float) -> None:
        top = max([1.12 * value for value in values] + [1.35 * (tau or 0.0)]) or 1.0  # room for the regions' names
        self._top, self._start, self._end = top, start, end
        known = [float(t) for t in MaxNLocator(5).tick_values(0, top) if 0 <= t <= top]
        self.ticks = [{"at": self.at(t), "label": f"{t:.6g}"} for t in known]

    def at(self, value: float) -> float:
        return round(self._start + (self._end - self._start) * value / self._top, 2)


def matrix(run: Run) -> dict[str, Any]:
    """Return Figure 3: a row a prompt category, a column a subject category; the largest E_sem gives the shade 1."""
    rows = run.statistics["category_by_category"]
    known = {(r["prompt_category"], r["subject_category"]): r for r in rows}
    values = [r["e_sem"]["value"] for r in rows if r["e_sem"]["value"] is not None]
    return {
        "prompts": [c for c in CATEGORIES if any(r["prompt_category"] == c for r in rows)],
        "subjects": sorted({r["subject_category"] for r in rows}),
        "cells": known,
        "top": max(values, default=0.0),
    }


def prompt_cards(run: Run, shown: Gallery, key: str) -> list[dict[str, Any]]:
    """Return a list's first prompts, each with the pair of its most shifted non-target cell that has pictures."""
    pictured = shown.pairs.drop_nulls("base").select("prompt_id", "adapter", "seed", "base", "adapted")
    cells = run.others.select("prompt_id", "adapter", "e_sem").join(pictured, on=("prompt_id", "adapter"))
    worst = {row["prompt_id"]: row for row in cells.sort("e_sem", descending=False).iter_rows(named=True)}
    cards: list[dict[str, Any]] = []
    for entry in run.statistics[key]:
        cell = worst.get(entry["prompt_id"])
        if cell and len(cards) < CARDS:
            pair = {
                "adapter": cell["adapter"], "seed": cell["seed"], "cell_e_sem": cell["e_sem"],
                "base": shown.url(cell["base"]), "adapted": shown.url(cell["adapted"]),
            }  # fmt: skip
            cards.append(entry | pair)
    return cards


def controls(run: Run) -> list[dict[str, Any]]:
    """Return a row an identity control: whether it was drawn, its cells and largest values."""
    proved = run.statistics["identity_control"].get("proved", [])
    return (
        run.cells.filter(pl.col("method") == CONTROL)
        .group_by("adapter", maintain_order=True)
        .agg(cells=pl.col("e_sem").count(), e_sem=pl.col("e_sem").max(), e_per=pl.col("e_per").max())
        .with_columns(drawn=~pl.col("adapter").is_in(proved))
        .to_dicts()
    )


def adapter_cards(run: Run) -> list[dict[str, Any]]:
    """Return each adapter with its card, and licence and consent as the card, or else the file's own metadata, says."""
    names = run.cells.select("adapter", "method", "subject_category").unique().sort("adapter")
    rows = []
    for row in names.iter_rows(named=True):
        card = run.cards.get(row["adapter"], {})
        said = card.get("metadata", {}) | card
        licence = next((said[key] for key in LICENCE if said.get(key)), None)
        rows.append(row | {"card": card, "licence": licence, "consent": said.get("consent")})
    return rows


def distance_tables(run: Run) -> list[dict[str, Any]]:
    """Return a table a (metric, design): adapters down, prompt categories across."""
    rows = run.statistics.get("distances", [])
    tables: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        table = tables.setdefault(
            (row["metric"], row["design"]),
            {"metric": row["metric"], "design": row["design"], "method": row["method"], "cells": {}, "reasons": set()},
        )
        table["cells"][row["adapter"], row["prompt_category"]] = row
        if row["reason"]:
            table["reasons"].add(row["reason"])
    for table in tables.values():
        table["adapters"] = list(dict.fromkeys(adapter for adapter, _ in table["cells"]))
        table["categories"] = [c for c in CATEGORIES if any(c == category for _, category in table["cells"])]
        table["reasons"] = sorted(table["reasons"])
    return list(tables.values())
