"""What the page shows of the judges beside CLIP and LPIPS: their table, and their measures of the map."""

from __future__ import annotations

from typing import Any

import polars as pl

from raymap.analysis.judged import read_judged_map
from raymap.report.source import KEY, Run


def judges(run: Run) -> list[dict[str, Any]]:
    """Return what each judge declares and its floor, with `adapters`: its statistics of each; none without judges."""
    judged = run.statistics.get("judged", {"judges": (), "adapters": ()})
    return [
        {**judge, "adapters": [row for row in judged["adapters"] if row["judge"] == judge["judge"]]}
        for judge in judged["judges"]
    ]


def measures(run: Run, grid: pl.DataFrame) -> tuple[list[dict[str, Any]], dict[str, pl.Series]]:
    """Return the measures that the judges add to the map, and one value per cell of `grid` for each, by their keys.

    A pair judge adds its shift; a prompt judge adds its shift and its signed one. Of a measure, `better` is the sign of
    a change for the better, 0 where it has none; `floor` is the value above which the measure `of` exceeds re-seeding.
    """
    menu: list[dict[str, Any]] = []
    values: dict[str, pl.Series] = {}
    cells = read_judged_map(run.folder.root)
    for judge in judges(run):
        name = judge["judge"]
        own = cells.filter(pl.col("judge") == name).select(*KEY, "shift", "shift_signed")
        placed = grid.select(*KEY).join(own, on=KEY, how="left", maintain_order="left")
        shift, signed = f"judge:{name}", f"judge:{name}:signed"
        common = {"name": name, "of": shift, "floor": (judge["tau"] or {}).get("value")}
        menu.append({**common, "key": shift, "what": "distance" if judge["kind"] == "pair" else "change", "better": 0})
        values[shift] = placed["shift"]
        if judge["kind"] == "prompt":
            better = 1 if judge["higher_is_better"] else -1
            menu.append({**common, "key": signed, "what": "better or worse", "better": better})
            values[signed] = placed["shift_signed"]
    return menu, values
