"""Figure 2: the map. Rows are prompts by category, columns adapters; warmer is a larger E_sem."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from raymap.analysis.map import measured
from raymap.display.text import cut
from raymap.report.colours import sequential
from raymap.report.figures import Figure, FigureData
from raymap.results import Run
from raymap.study.methods.registry import METHODS
from raymap.study.suite import CATEGORIES

LABELLED = 80
"""Up to so many prompts are named each; of more, only the categories are named."""
SHORT = 48


def data(run: Run) -> FigureData:
    """Return the cells of the map, controls included."""
    return FigureData(run.cells)


def draw(shown: FigureData) -> Drawing:
    """Draw the map without controls: prompts down, the most shifted of each category first, and adapters across."""
    cells = measured(shown.frame)
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
    figure = Drawing(figsize=(2.6 + 0.17 * max(len(adapters), 4), 1.6 + (0.15 if rows <= LABELLED else 0.045) * rows))
    axes = figure.add_subplot()
    image = axes.imshow(grid, cmap=sequential(), vmin=0, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(adapters)), [cut(name, SHORT) for name in adapters["adapter"]], rotation=90, fontsize=5)
    named = [cut(text, SHORT) for text in prompts["prompt"]] if rows <= LABELLED else None
    _name_rows(axes, prompts["prompt_category"].to_list(), named)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="$E_{sem}$", shrink=min(1.0, 12 / rows + 0.3))
    return figure


def _name_rows(axes: Axes, categories: list[str], named: list[str] | None) -> None:
    """Name the rows, or else their categories, and draw a line between two categories."""
    starts = [k for k in range(len(categories)) if k == 0 or categories[k] != categories[k - 1]]
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="black", linewidth=0.6)
    if named is not None:
        axes.set_yticks(range(len(named)), named, fontsize=5)
        return
    ends = [*starts[1:], len(categories)]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    axes.set_yticks(middles, [categories[start] for start in starts], fontsize=8)


FIGURE = Figure(
    key="figure_2",
    caption="Figure 2. The map: E_sem of each prompt under each adapter.",
    data=data,
    draw=draw,
    on_page=False,  # the page has the map itself, which can be ordered, filtered and walked
)
