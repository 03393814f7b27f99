"""A package that adds a figure to reports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

LIKELY = '''
"""How often each number of prompts shifts: a figure that raymap does not have."""

import polars as pl
from matplotlib.figure import Figure as Drawing

from raymap.report.figures import Figure, FigureData, tip


def data(run):
    means = run.others.group_by("prompt_category").agg(pl.col("e_sem").mean()).sort("prompt_category")
    return FigureData(means, {"e_sem": 0.01})


def draw(shown):
    drawing = Drawing(figsize=(4, 3))
    axes = drawing.add_subplot()
    for row in shown.frame.iter_rows(named=True):
        (bar,) = axes.barh(row["prompt_category"], row["e_sem"], color="black")
        tip(bar, f"{row['prompt_category']} & <b>others</b>")
    axes.axvline(shown.thresholds["e_sem"])
    axes.set_xlabel("mean $E_{sem}$")
    return drawing


FIGURE = Figure("by_prompts", "Figure 4. Mean E_sem by prompt category.", data, draw)
'''


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, entry: str) -> None:
    """Install a package of one module, with an entry point, into a folder, which Python then looks in."""
    about = folder / "by_prompts-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: by-prompts\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[raymap.figures]\n{entry}\n")
    (folder / "figure_by_prompts.py").write_text(module)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "figure_by_prompts", raising=False)
