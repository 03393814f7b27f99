"""Plots a bench: images per second over the settings that vary, and where each setup's time goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raymap.bench.record import Record, label, varied
from raymap.bench.setups import Setup

SHARES = {"draw_share": "drawing", "score_share": "scoring and writing", "swap_share": "swapping"}


def draw(record: Record, setups: Sequence[Setup], path: Path) -> None:
    """Save a PNG: a panel for each numeric setting that varies, and the setups' shares of time below.

    Points are repeats, lines join their medians.
    """
    setups = [setup for setup in setups if record.of(setup)]
    names = varied(setups)
    numbers = [n for n in names if all(type(getattr(s, n)) in (int, float) for s in setups)] or ["batch_size"]
    figure = Figure(figsize=(max(6, 4.5 * len(numbers)), 5.5 + 0.25 * len(setups)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(4, 1.5 + 0.25 * len(setups)))
    for axes, name in zip(parts[0].subplots(1, len(numbers), squeeze=False)[0], numbers, strict=True):
        _rates(axes, record, setups, name, [other for other in names if other != name])
    _shares(parts[1].subplots(), record, setups, names)
    figure.savefig(path, dpi=120)


def _rates(axes: Axes, record: Record, setups: Sequence[Setup], name: str, others: list[str]) -> None:
    lines: dict[str, dict[float, list[float]]] = defaultdict(dict)
    for setup in setups:
        lines[label(setup, others)][getattr(setup, name)] = [row["images_per_s"] for row in record.of(setup)]
    for legend, points in lines.items():
        positions = sorted(points)
        (line,) = axes.plot(positions, [median(points[x]) for x in positions], label=legend)
        axes.scatter(
            [x for x in positions for _ in points[x]],
            [y for x in positions for y in points[x]],
            s=12,
            color=line.get_color(),
        )
    ticks = sorted({x for points in lines.values() for x in points})
    axes.set(xlabel=name.replace("_", " "), ylabel="images per second", ylim=(0, None), xticks=ticks)
    axes.grid(alpha=0.3)
    if others and 1 < len(lines) <= 12:
        axes.legend(fontsize=7)


def _shares(axes: Axes, record: Record, setups: Sequence[Setup], names: list[str]) -> None:
    labels = [label(setup, names) for setup in setups]
    left = [0.0] * len(setups)
    for column, meaning in SHARES.items():
        widths: list[Any] = [100 * median(row[column] for row in record.of(setup)) for setup in setups]
        axes.barh(labels, widths, left=left, label=meaning)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set(xlabel="% of a worker's time", xlim=(0, 100))
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(SHARES), frameon=False)
