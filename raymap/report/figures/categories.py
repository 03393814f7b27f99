"""Figure 3: mean E_sem of each subject category on each prompt category."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Drawing

from raymap.analysis.measures import BASIC, E_SEM
from raymap.analysis.numerics.crossed import over
from raymap.display.text import number
from raymap.report.colours import readable_on, sequential
from raymap.report.figures import Figure, FigureData
from raymap.results import Run
from raymap.study.suite import CATEGORIES


def data(run: Run) -> FigureData:
    """Return one row per subject category and prompt category, with intervals and what they generalise over."""
    rows = [
        {
            "subject_category": row["subject_category"], "prompt_category": row["prompt_category"],
            "e_sem": row["e_sem"]["value"], "e_sem_low": row["e_sem"]["low"], "e_sem_high": row["e_sem"]["high"],
            "e_per": row["e_per"]["value"], "e_per_low": row["e_per"]["low"], "e_per_high": row["e_per"]["high"],
            "intervals": over(row["e_sem"]),
        }
        for row in run.statistics["category_by_category"]
    ]  # fmt: skip
    numbers = {f"{m.name}{end}": pl.Float64 for m in BASIC for end in ("", "_low", "_high")}
    kinds = {"subject_category": pl.String, "prompt_category": pl.String, **numbers, "intervals": pl.String}
    return FigureData(pl.DataFrame(rows, schema=kinds))


def draw(shown: FigureData) -> Drawing:
    """Draw a shaded table: prompt categories down, subject categories across."""
    prompts, subjects = categories(shown)
    means = shown.frame.select("prompt_category", "subject_category", "e_sem")
    values = {(prompt, subject): value for prompt, subject, value in means.iter_rows()}
    grid = np.array([[values.get((p, s)) for s in subjects] for p in prompts], dtype=np.float64)
    grid = grid.reshape(len(prompts), -1)
    figure = Drawing(figsize=(1.8 + 0.8 * max(len(subjects), 1), 1.2 + 0.36 * max(len(prompts), 1)))
    axes = figure.add_subplot()
    if grid.size:
        image = axes.imshow(grid, cmap=sequential(), vmin=0, aspect="auto")
        colours = image.to_rgba(grid)
        for (r, c), value in np.ndenumerate(grid):
            text = number(None if np.isnan(value) else value, E_SEM.digits)
            ink = readable_on(to_hex(tuple(colours[r, c].tolist())))
            axes.text(c, r, text, ha="center", va="center", fontsize=7, color=ink)
        figure.colorbar(image, ax=axes, label="$E_{sem}$")
    axes.set_xticks(range(len(subjects)), subjects, fontsize=8)
    axes.set_yticks(range(len(prompts)), prompts, fontsize=8)
    axes.set_xlabel("trained subject")
    axes.set_ylabel("prompts")
    return figure


def categories(shown: FigureData) -> tuple[list[str], list[str]]:
    """Return the prompt categories in the suite's order, and the subject categories in alphabetical order."""
    prompts = set(shown.frame["prompt_category"])
    return [c for c in CATEGORIES if c in prompts], sorted(set(shown.frame["subject_category"]))


FIGURE = Figure(
    key="figure_3",
    caption="Figure 3. Mean E_sem of each subject category on each prompt category, with the 95 % interval below. A "
    "dot marks the subject's own category.",
    data=data,
    draw=draw,
    on_page=False,  # the page has a table of the same shades, whose numbers and intervals can be read and copied
)
