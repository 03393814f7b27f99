"""Renders a run folder as one self-contained HTML file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from raymap.analysis.maps import measured
from raymap.analysis.reduce import read_map, read_statistics
from raymap.plan import BASE
from raymap.store.files import files_in, write_atomically
from raymap.store.folder import RunFolder
from raymap.study import CATEGORIES

PAIRS = 12
# Eleven stops of matplotlib's "magma" colour map, light end last.
_RAMP = (
    (0, 0, 4), (21, 14, 55), (59, 15, 112), (100, 26, 128), (140, 41, 129), (183, 55, 121), (222, 73, 104),
    (247, 112, 92), (254, 159, 109), (254, 207, 146), (252, 253, 191),
)  # fmt: skip


def shade(value: float, top: float) -> tuple[str, str]:
    """Return CSS colours for `value` between 0 and `top`: of the cell, and of text that is readable on it."""
    at = min(max(value / top, 0.0), 1.0) * (len(_RAMP) - 1) if top > 0 else 0.0
    low = min(int(at), len(_RAMP) - 2)
    mixed = [round(a + (b - a) * (at - low)) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True)]
    luma = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2]  # Rec. 601
    return "rgb({},{},{})".format(*mixed), "#000" if luma > 110 else "#fff"


def report_path(root: Path) -> Path:
    """Return where a run folder's report lies."""
    return RunFolder(root).report


def render(root: Path) -> Path:
    """Write `report/index.html` from the run folder's map, statistics and kept images, and return its path.

    Raises:
        InputError: when map or statistics are not there yet (run `raymap stats` first).
    """
    folder = RunFolder(root)
    cells, statistics = read_map(root), read_statistics(root)
    provenance = json.loads((root / "run.json").read_text()) if (root / "run.json").exists() else {}
    environment = Environment(
        loader=PackageLoader("raymap.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("page.html.jinja").render(
        title=provenance.get("study", root.name),
        statistics=statistics,
        heatmaps=[_heatmap(cells, "e_sem", "E_sem"), _heatmap(cells, "e_per", "E_per")],
        pairs=_pairs(folder, cells),
        provenance=provenance,
        above=_above(cells),
    )
    write_atomically(folder.report, page.encode())
    return folder.report


def _above(cells: pl.DataFrame) -> dict[str, int]:
    others = measured(cells).filter(~pl.col("target"))
    counts = {name: int(others[f"above_tau_{name}"].sum()) for name in ("sem", "per")}
    return {**counts, "cells": others.height}


def _heatmap(cells: pl.DataFrame, column: str, name: str) -> dict[str, Any]:
    """Return a prompt × adapter table of shaded cells, prompts grouped by category, most shifted first."""
    top = float(measured(cells)[column].max() or 0.0)  # type: ignore[arg-type]
    adapters = cells["adapter"].unique().sort().to_list()
    rows = []
    values = {(r["prompt_id"], r["adapter"]): r for r in cells.iter_rows(named=True)}
    means = measured(cells).group_by("prompt_id", "prompt", "prompt_category").agg(pl.col(column).mean())
    for category in CATEGORIES:
        part = means.filter(pl.col("prompt_category") == category).sort(column, "prompt_id", descending=[True, False])
        for prompt in part.iter_rows(named=True):
            row = []
            for adapter in adapters:
                cell = values.get((prompt["prompt_id"], adapter))
                value = None if cell is None else cell[column]
                tau = None if cell is None else cell[f"above_tau_{column[2:]}"]
                color, ink = ("none", "inherit") if value is None else shade(value, top)
                row.append({"value": value, "color": color, "ink": ink, "above": tau})
            rows.append({"prompt": prompt["prompt"], "category": category, "cells": row})
    return {"name": name, "column": column, "adapters": adapters, "rows": rows, "top": top}


def _pairs(folder: RunFolder, cells: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the cells with the largest E_sem of which pictures are kept, pictures as data URLs."""
    pairs = []
    order = measured(cells).drop_nulls("e_sem").sort("e_sem", "prompt_id", "adapter", descending=[True, False, False])
    for cell in order.iter_rows(named=True):
        kept = files_in(folder.image(cell["adapter"], cell["prompt_id"], 0).parent, ".png")
        if not kept:
            continue
        seed = int(kept[0].stem)
        base = folder.image(BASE, cell["prompt_id"], seed)
        if base.exists():
            pairs.append(cell | {"seed": seed, "base": _data_url(base), "adapted": _data_url(kept[0])})
        if len(pairs) == PAIRS:
            break
    return pairs


def _data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
