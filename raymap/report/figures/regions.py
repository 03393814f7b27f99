"""Figure 1: each adapter's mean E_sem and E_per, and the four regions that the noise thresholds bound."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from raymap.analysis.measures import BASIC
from raymap.display.text import cut, number
from raymap.report.colours import SUBJECTS
from raymap.report.figures import Figure, FigureData, tip
from raymap.results import Run
from raymap.study.methods.method import Marker, Method
from raymap.study.methods.registry import find_method, rank

COLUMNS = ("adapter", "method", "subject_category", "e_sem", "e_per", "region")
CORNERS = {"safe": (0, 0), "semantic drift": (1, 0), "visual drift": (0, 1), "full entanglement": (1, 1)}
"""The corner of each region: left or right, bottom or top."""
GRAY = "0.45"
"""What reads on a light and on a dark ground."""
SMALL = 8


def data(run: Run) -> FigureData:
    """Return one row per adapter, and the thresholds of E_sem and E_per if there is a noise floor."""
    kinds = {name: pl.Float64 if name in ("e_sem", "e_per") else pl.String for name in COLUMNS}
    thresholds = {m.name: value for m in BASIC if (value := run.threshold(m)) is not None}
    return FigureData(pl.DataFrame(run.statistics["regions"], schema=kinds), thresholds)


def draw(shown: FigureData) -> Drawing:
    """Draw a point per adapter: its colour is the subject category, its marker the method."""
    figure = Drawing(figsize=(6.4, 4.3), layout="constrained")
    axes = figure.add_subplot()
    rows = shown.frame.drop_nulls(["e_sem", "e_per"]).rows(named=True)
    for row in sorted(rows, key=lambda row: (rank(row["method"]), row["subject_category"])):
        point = axes.scatter(
            row["e_sem"], row["e_per"], s=40, clip_on=False, zorder=3, marker=marker_of(row["method"]),
            color=SUBJECTS.get(row["subject_category"], SUBJECTS["unknown"]), edgecolors="white", linewidths=0.6,
        )  # fmt: skip
        means = ", ".join(f"{m.label} {number(row[m.name], m.digits)}" for m in BASIC)
        tip(point, f"{cut(row['adapter'], 60)}: {means}{', ' + row['region'] if row['region'] else ''}")
    _regions(axes, shown.thresholds)
    axes.set_xlabel("$E_{sem}$: mean |change of CLIP score|")
    axes.set_ylabel("$E_{per}$: mean LPIPS")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="black", alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    if rows:
        _legend(figure, rows)
    return figure


def _regions(axes: Axes, thresholds: dict[str, float]) -> None:
    """Let the axes begin at 0 and reach beyond the thresholds, and name what these bound."""
    sem, per = thresholds.get("e_sem"), thresholds.get("e_per")
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.35 * (sem or 0.0)))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.15 * (per or 0.0)))
    if sem is None or per is None:
        return
    axes.axvline(sem, color=GRAY, linestyle="--", linewidth=0.9)
    axes.axhline(per, color=GRAY, linestyle="--", linewidth=0.9)
    note: dict[str, Any] = {"fontsize": SMALL, "style": "italic", "color": GRAY}
    beside = {"textcoords": "offset points", **note}
    axes.annotate(r"$\tau_{sem}$", (sem, 0.0), (-4, 7), xycoords=("data", "axes fraction"), ha="right", **beside)
    axes.annotate(r"$\tau_{per}$", (0.0, per), (5, -4), xycoords=("axes fraction", "data"), va="top", **beside)
    for name, (x, y) in CORNERS.items():
        axes.text(
            0.015 + 0.97 * x, 0.02 + 0.96 * y, name, transform=axes.transAxes, ha=("left", "right")[x],
            va=("bottom", "top")[y], **note,
        )  # fmt: skip


def _legend(figure: Drawing, rows: list[dict[str, Any]]) -> None:
    """Name the colours and the markers below the drawing."""
    categories = sorted({row["subject_category"] for row in rows})
    methods = sorted({row["method"] for row in rows}, key=rank)
    colours = [_key("o", SUBJECTS.get(name, SUBJECTS["unknown"]), name) for name in categories]
    markers = [_key(marker_of(name), GRAY, name) for name in methods]
    # A legend is filled column by column: the first row is to hold the colours, the second the markers.
    columns = list(zip_longest(colours, markers, fillvalue=_key("", GRAY, "")))
    figure.legend(
        handles=list(chain.from_iterable(columns)), loc="outside lower center", ncols=len(columns), fontsize=SMALL,
        frameon=False, handletextpad=0.2, columnspacing=1.6,
    )  # fmt: skip


def _key(marker: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], marker=marker, color=colour, linestyle="", markersize=5.5, label=label)


def marker_of(method: str) -> Marker:
    """Return the marker that a method's description names; methods that are unknown here share the default one."""
    described = find_method(method)
    return described.marker if described else Method.marker


FIGURE = Figure(
    key="figure_1",
    caption="Figure 1. Each adapter's means over non-target prompts. Dashed: the noise thresholds, below which 95 % of "
    "re-seedings of the base stay, pair by pair.",
    data=data,
    draw=draw,
)
