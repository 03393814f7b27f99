"""The paper's Figures 1 to 3 for print: PNG, SVG or PDF."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure

from raymap.analysis.map import measured
from raymap.display.text import cut
from raymap.report.colours import SUBJECTS, readable_on, stops
from raymap.report.markers import marker_of
from raymap.report.source import Run
from raymap.study.methods.registry import METHODS, rank
from raymap.study.suite import CATEGORIES

FORMATS = ("png", "svg", "pdf")
DPI = 200
LABELLED = 80
"""Up to so many prompts, Figure 2 names each; beyond, their categories alone."""
SHORT = 48


def figures(run: Run) -> dict[str, Callable[[], Figure]]:
    """Return file name -> what draws it."""
    return {
        "figure_1": lambda: scatter(run),
        "figure_2": lambda: heatmap(run),
        "figure_3": lambda: matrix(run),
    }


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file of one of FORMATS; the same figure gives the same bytes."""
    data = io.BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    figure.savefig(data, format=kind, dpi=DPI, bbox_inches="tight", metadata=undated)
    return data.getvalue()


def scatter(run: Run) -> Figure:
    """Figure 1: each adapter's mean E_sem and E_per over non-target prompts, thresholds, regions."""
    figure = Figure(figsize=(5.2, 3.6))
    axes = figure.add_subplot()
    rows = [row for row in run.statistics["regions"] if None not in (row["e_sem"], row["e_per"])]
    for method, category in sorted({(row["method"], row["subject_category"]) for row in rows}, key=_order):
        part = [row for row in rows if (row["method"], row["subject_category"]) == (method, category)]
        axes.scatter(
            [row["e_sem"] for row in part], [row["e_per"] for row in part], s=30,
            marker=marker_of(method), color=SUBJECTS.get(category, SUBJECTS["unknown"]),
            edgecolors="white", linewidths=0.5, label=f"{method}, {category}",
        )  # fmt: skip
    floor = run.statistics["noise_floor"]
    if floor["pairs"]:
        axes.axvline(floor["tau_sem"]["value"], color="0.4", linestyle="--", linewidth=0.8)
        axes.axhline(floor["tau_per"]["value"], color="0.4", linestyle="--", linewidth=0.8)
        corners = {"safe": (0, 0), "semantic drift": (1, 0), "visual drift": (0, 1), "full entanglement": (1, 1)}
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.15 * floor["tau_sem"]["value"]))
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.15 * floor["tau_per"]["value"]))
        for name, (x, y) in corners.items():
            axes.text(
                0.02 + 0.96 * x, 0.02 + 0.96 * y, name, transform=axes.transAxes, fontsize=7, style="italic",
                color="0.4", ha=("left", "right")[x], va=("bottom", "top")[y],
            )  # fmt: skip
    axes.set_xlabel("$E_{sem}$: mean |change of CLIP score|")
    axes.set_ylabel("$E_{per}$: mean LPIPS")
    if rows:
        axes.legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def heatmap(run: Run) -> Figure:
    """Figure 2: the map. Rows are prompts by category, columns adapters; warmer is a larger E_sem."""
    cells = measured(run.cells)
    order = {category: k for k, category in enumerate(CATEGORIES)}
    prompts = (
        cells.group_by("prompt_id", "prompt", "prompt_category")
        .agg(pl.col("e_sem").mean())
        .sort(
            pl.col("prompt_category").replace_strict(order, default=len(order)), "e_sem", "prompt_id",
            descending=[False, True, False], nulls_last=True,
        )
    )  # fmt: skip
    methods = pl.col("method").replace_strict({method: k for k, method in enumerate(METHODS)}, default=len(METHODS))
    adapters = (
        cells.select("subject_category", "method", "adapter").unique().sort("subject_category", methods, "adapter")
    )
    values = {(row[0], row[1]): row[2] for row in cells.select("prompt_id", "adapter", "e_sem").iter_rows()}
    grid = np.array([[values.get((p, a)) for a in adapters["adapter"]] for p in prompts["prompt_id"]], dtype=np.float64)
    rows = max(len(prompts), 1)
    figure = Figure(figsize=(2.6 + 0.17 * max(len(adapters), 4), 1.6 + (0.15 if rows <= LABELLED else 0.045) * rows))
    axes = figure.add_subplot()
    image = axes.imshow(grid, cmap=_sequential(), vmin=0, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(adapters)), [cut(name, SHORT) for name in adapters["adapter"]], rotation=90, fontsize=5)
    named = [cut(text, SHORT) for text in prompts["prompt"]] if rows <= LABELLED else None
    _category_ticks(axes, prompts["prompt_category"].to_list(), named)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="$E_{sem}$", shrink=min(1.0, 12 / rows + 0.3))
    return figure


def matrix(run: Run) -> Figure:
    """Figure 3: mean E_sem of each subject category on each prompt category."""
    rows = run.statistics["category_by_category"]
    known = {(row["prompt_category"], row["subject_category"]): row["e_sem"]["value"] for row in rows}
    prompts = [c for c in CATEGORIES if any(row["prompt_category"] == c for row in rows)]
    subjects = sorted({row["subject_category"] for row in rows})
    grid = np.array([[known.get((p, s)) for s in subjects] for p in prompts], dtype=np.float64).reshape(
        len(prompts), -1
    )
    figure = Figure(figsize=(1.8 + 0.8 * max(len(subjects), 1), 1.2 + 0.36 * max(len(prompts), 1)))
    axes = figure.add_subplot()
    if grid.size:
        image = axes.imshow(grid, cmap=_sequential(), vmin=0, aspect="auto")
        colours = image.to_rgba(grid)
        for (r, c), value in np.ndenumerate(grid):
            text = "–" if np.isnan(value) else f"{value:.4f}"
            ink = readable_on(to_hex(tuple(colours[r, c].tolist())))
            axes.text(c, r, text, ha="center", va="center", fontsize=7, color=ink)
        figure.colorbar(image, ax=axes, label="$E_{sem}$")
    axes.set_xticks(range(len(subjects)), subjects, fontsize=8)
    axes.set_yticks(range(len(prompts)), prompts, fontsize=8)
    axes.set_xlabel("trained subject")
    axes.set_ylabel("prompts")
    return figure


def _order(key: tuple[str, str]) -> tuple[tuple[int, str], str]:
    method, category = key
    return rank(method), category


def _sequential() -> Colormap:
    return LinearSegmentedColormap.from_list("shift", stops("light", signed=False)).with_extremes(bad="#bbbbbb")


def _category_ticks(axes: Axes, categories: list[str], named: list[str] | None) -> None:
    """Name the rows, or their categories, and draw a line between two categories."""
    starts = [k for k in range(len(categories)) if k == 0 or categories[k] != categories[k - 1]]
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="black", linewidth=0.6)
    if named is not None:
        axes.set_yticks(range(len(named)), named, fontsize=5)
        return
    ends = [*starts[1:], len(categories)]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    axes.set_yticks(middles, [categories[start] for start in starts], fontsize=8)
