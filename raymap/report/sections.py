"""What the page's static parts show: figures, tables, prompt cards, adapter cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from raymap.analysis.measures import E_SEM
from raymap.analysis.read import KEY
from raymap.analysis.statistics import DistanceRow, RankedPrompt
from raymap.report.figures import categories, figures
from raymap.report.figures.render import inline
from raymap.report.thumbnails import Gallery
from raymap.results import Run
from raymap.study.methods.method import CONTROL
from raymap.study.subject import OWN_CATEGORY
from raymap.study.suite import CATEGORIES

CARDS = 6
"""How many prompts of the fragile and of the robust list are shown with images."""
LICENCE = ("licence", "license", "modelspec.license")
"""The names that cards and files of others have for it."""


@dataclass(frozen=True)
class Drawn:
    """A figure as the page shows it."""

    key: str
    caption: str
    svg: Markup


def drawn(run: Run) -> list[Drawn]:
    """Draw the figures that the page shows and that the run has numbers for.

    Raises:
        InputError: the figure of an installed package cannot be loaded.
    """
    shown = [(figure, figure.data(run)) for figure in figures() if figure.on_page]
    return [
        Drawn(figure.key, figure.caption, inline(figure.draw(data), figure.key))
        for figure, data in shown
        if data is not None and not data.blank
    ]


def matrix(run: Run) -> dict[str, Any]:
    """Return Figure 3: one row per prompt category, one column per subject category; `top` is the largest E_sem."""
    shown = categories.data(run)
    prompts, subjects = categories.categories(shown)
    cells = {(row["prompt_category"], row["subject_category"]): row for row in shown.frame.iter_rows(named=True)}
    return {
        "caption": categories.FIGURE.caption,
        "prompts": prompts,
        "subjects": subjects,
        "cells": cells,
        "own": OWN_CATEGORY,
        "top": shown.frame[E_SEM.name].max() or 0.0,
    }


def prompt_cards(run: Run, gallery: Gallery, listed: list[RankedPrompt]) -> list[dict[str, Any]]:
    """Return a list's first prompts, each with the pair of its most shifted non-target cell that has images."""
    embedded = gallery.pairs.drop_nulls("base").select(*KEY, "seed", "base", "adapted")
    cells = run.others.select(*KEY, "e_sem").join(embedded, on=KEY)
    worst = {row["prompt_id"]: row for row in cells.sort("e_sem").iter_rows(named=True)}
    chosen = [(entry, worst[entry["prompt_id"]]) for entry in listed if entry["prompt_id"] in worst]
    return [
        {
            **entry, "adapter": cell["adapter"], "seed": cell["seed"], "cell_e_sem": cell["e_sem"],
            "base": gallery.url(cell["base"]), "adapted": gallery.url(cell["adapted"]),
        }
        for entry, cell in chosen[:CARDS]
    ]  # fmt: skip


def controls(run: Run) -> list[dict[str, Any]]:
    """Return one row per identity control: whether it was drawn, its cells and its largest values."""
    proved = run.statistics["identity_control"].get("proved", [])
    return (
        run.cells.filter(pl.col("method") == CONTROL)
        .group_by("adapter", maintain_order=True)
        .agg(cells=pl.col("e_sem").count(), e_sem=pl.col("e_sem").max(), e_per=pl.col("e_per").max())
        .with_columns(drawn=~pl.col("adapter").is_in(proved))
        .to_dicts()
    )


def adapter_cards(run: Run) -> list[dict[str, Any]]:
    """Return each adapter with its card, and with the licence and consent that the card, or else the file, states."""
    names = run.cells.select("adapter", "method", "subject_category").unique().sort("adapter")
    rows = []
    for row in names.iter_rows(named=True):
        card = run.cards.get(row["adapter"], {})
        stated = card.get("metadata", {}) | card
        licence = next((stated[key] for key in LICENCE if stated.get(key)), None)
        rows.append(row | {"card": card, "licence": licence, "consent": stated.get("consent")})
    return rows


def distance_tables(run: Run) -> list[dict[str, Any]]:
    """Return one table per metric and design: adapters down, prompt categories across."""
    tables: dict[tuple[str, str], list[DistanceRow]] = {}
    for row in run.statistics.get("distances", []):
        tables.setdefault((row["metric"], row["design"]), []).append(row)
    return [
        {
            "metric": metric,
            "design": design,
            "method": rows[0]["method"],
            "cells": {(row["adapter"], row["prompt_category"]): row for row in rows},
            "adapters": list(dict.fromkeys(row["adapter"] for row in rows)),
            "categories": [c for c in CATEGORIES if any(row["prompt_category"] == c for row in rows)],
            "reasons": sorted({row["reason"] for row in rows if row["reason"]}),
        }
        for (metric, design), rows in tables.items()
    ]
