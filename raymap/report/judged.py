"""What the page shows of the judges beside CLIP and LPIPS: their table, and their measures in the map."""

from __future__ import annotations

import polars as pl

from raymap.analysis.measures import Measure
from raymap.analysis.read import KEY
from raymap.analysis.statistics import JudgedAdapter, JudgeSummary
from raymap.results import Run

DIGITS = 3
"""Significant digits of judges' values in the map."""


class JudgeAndAdapters(JudgeSummary):
    """What a judge declares, its floor, and what it finds of each adapter."""

    adapters: list[JudgedAdapter]


def judges(run: Run) -> list[JudgeAndAdapters]:
    """Return the judges of a run, in the order of their names; none if it has no further judge."""
    judged = run.statistics.get("judged")
    if judged is None:
        return []
    return [
        {**judge, "adapters": [row for row in judged["adapters"] if row["judge"] == judge["judge"]]}
        for judge in judged["judges"]
    ]


def measures(run: Run) -> tuple[Measure, ...]:
    """Return the measures that judges add to the map: the shift of each, and of a prompt judge the signed shift too."""
    return tuple(measure for judge in judges(run) for measure in _measures(judge))


def _measures(judge: JudgeSummary) -> list[Measure]:
    name, shift = judge["judge"], _shift(judge)
    change = "distance" if judge["kind"] == "pair" else "change"
    found = [Measure(shift, f"{name}: {change}", DIGITS, None, shift, floors=(shift,), any_scale=True)]
    if judge["kind"] == "prompt":
        signed, better = _signed(judge), 1 if judge["higher_is_better"] else -1
        label = f"{name}: better or worse"
        found.append(Measure(signed, label, DIGITS, None, signed, floors=(shift,), better=better, any_scale=True))
    return found


def columns(run: Run) -> pl.DataFrame:
    """Return KEY and a column per measure of the judges, one row per cell of the map."""
    frame = run.cells.select(KEY)
    for judge in judges(run):
        names = {_shift(judge): "shift", _signed(judge): "shift_signed"}
        own = run.judged.filter(pl.col("judge") == judge["judge"]).select(*KEY, **names)
        frame = frame.join(own, on=KEY, how="left")
    return frame


def floors(run: Run) -> dict[str, float | None]:
    """Return the thresholds of the judges' shifts by the names of their measures."""
    return {_shift(judge): judge["tau"]["value"] if judge["tau"] else None for judge in judges(run)}


def _shift(judge: JudgeSummary) -> str:
    return f"judge:{judge['judge']}"


def _signed(judge: JudgeSummary) -> str:
    return f"{_shift(judge)}:signed"
