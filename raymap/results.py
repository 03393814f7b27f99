"""A run's results in Python and for its report: map, scores, tests and statistics. No torch, no Ray, no matplotlib."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from rich.table import Table

from raymap.analysis.changes import change_tests
from raymap.analysis.decide.answers import Verdict
from raymap.analysis.decide.verdict import answered, read_verdict
from raymap.analysis.estimates import Percentile
from raymap.analysis.judged import read_judged_map
from raymap.analysis.map import measured, with_entanglement
from raymap.analysis.measures import IN_MAP, Measure
from raymap.analysis.read import KEY, read_map, read_noise, read_scores, read_statistics, read_study, stream_scores
from raymap.analysis.shifts import TESTS
from raymap.analysis.statistics import Statistics
from raymap.analysis.why.statistics import AttentionSummary, InterventionsSummary
from raymap.display.text import estimate, plain, shown
from raymap.errors import InputError
from raymap.store.files import place, read_each, read_file, read_if_there
from raymap.store.folder import RunFolder

NEEDED = ("map.arrow", "shifts.arrow", "statistics.json")
"""The files that a reduced run folder has."""
_COLUMNS = ("adapter", "method", *(measure.label for measure in IN_MAP))


@dataclass(frozen=True)
class Matrix:
    """One measure of the map as an array.

    Attributes:
        values: float64 (P, S), NaN for a cell that was not measured. `np.asarray(matrix)` is the same array.
        prompts: texts of the rows; `prompt_ids` are their ids.
        adapters: names of the columns.
    """

    measure: str
    values: np.ndarray
    prompts: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    adapters: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of prompts and of adapters."""
        return len(self.prompts), len(self.adapters)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<{self.measure}: {self.shape[0]} prompts × {self.shape[1]} adapters>"


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder that holds a map. Everything is read when it is first asked for."""

    folder: Path

    @cached_property
    def files(self) -> RunFolder:
        """The paths within the folder."""
        return RunFolder(self.folder)

    @cached_property
    def map(self) -> pl.DataFrame:
        """The entanglement map, one row per prompt and adapter, identity controls included (schema MAP)."""
        return read_map(self.folder)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """The scores, one row per adapter, prompt and seed (schema SCORES)."""
        return read_scores(self.folder)

    @cached_property
    def noise(self) -> pl.DataFrame:
        """What re-seeding the base does, one row per pair of seeds (schema NOISE)."""
        return read_noise(self.folder)

    @cached_property
    def shifts(self) -> pl.DataFrame:
        """The p- and q-values of each cell, controls left out (schema SHIFTS)."""
        return pl.read_ipc(read_file(self.folder / "shifts.arrow"))

    @cached_property
    def changes(self) -> pl.DataFrame:
        """Each cell's change against the prompt's own margin, controls left out (schema CHANGES)."""
        stored = read_if_there(self.folder / "changes.arrow")
        return change_tests(stream_scores(self.folder), self.noise) if stored is None else pl.read_ipc(stored)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict, as verdict.json holds it."""
        return read_verdict(self.folder)

    @cached_property
    def judged(self) -> pl.DataFrame:
        """What further judges found, one row per prompt, adapter and judge (schema JUDGED_MAP); empty without any."""
        return read_judged_map(self.folder)

    @cached_property
    def statistics(self) -> Statistics:
        """What statistics.json holds."""
        return read_statistics(self.folder)

    @cached_property
    def study(self) -> dict[str, Any]:
        """The keys of the resolved study; empty if the folder has no study.yaml."""
        return read_study(self.folder)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What run.json holds; empty if there is none."""
        held: dict[str, Any] = self._json("run.json") or {}
        return held

    @cached_property
    def cards(self) -> dict[str, dict[str, Any]]:
        """The adapter.json of each adapter that has one, by the adapter's name."""
        paths = sorted((self.folder / "adapters").glob("*/adapter.json"))
        cards = [json.loads(content) for content in read_each(paths) if content is not None]
        return {card["name"]: card for card in cards}

    @cached_property
    def attention(self) -> AttentionSummary | None:
        """What attention.json holds; None if attention was not measured."""
        return cast(AttentionSummary | None, self._json("attention.json"))

    @cached_property
    def interventions(self) -> InterventionsSummary | None:
        """What interventions.json holds; None if the study has none."""
        return cast(InterventionsSummary | None, self._json("interventions.json"))

    def _json(self, name: str) -> Any:
        content = read_if_there(self.folder / name)
        return None if content is None else json.loads(content)

    @property
    def title(self) -> str:
        """The study's name, or that of the folder."""
        return str(self.record.get("study", self.folder.name))

    @cached_property
    def cells(self) -> pl.DataFrame:
        """The map with E and the q-values of each cell, sorted by prompt and adapter.

        Columns: those of `map`, then `entanglement` (the summand of E), `q_sem`, `q_per`, `q_signed`, and the cell's
        `answer` (*shifted*, *unchanged* or *cannot tell*) with the ways in which it shifted: `fell`, `rose`, `image`.
        They are null for controls.
        """
        summands = with_entanglement(measured(self.map)).select(*KEY, "entanglement")
        tests = self.shifts.select(*KEY, *(f"q_{name}" for name in TESTS))
        answers = answered(self.map, self.changes, self.shifts, bool(self.verdict["refused"]))
        answers = answers.select(*KEY, "answer", "fell", "rose", "image")
        cells = self.map.join(summands, on=KEY, how="left").join(tests, on=KEY, how="left")
        return cells.join(answers, on=KEY, how="left").sort(*KEY)

    @property
    def others(self) -> pl.DataFrame:
        """The cells that adapters are judged by: those of neither controls nor target prompts."""
        return measured(self.cells).filter(~pl.col("target"))

    def threshold(self, measure: Measure) -> float | None:
        """Return the noise floor's threshold of a measure; None if it has none."""
        held = cast(Percentile | None, self.statistics["noise_floor"].get(measure.tau or ""))
        return held["value"] if held else None

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters in order, controls left out."""
        return tuple(measured(self.map)["adapter"].unique().sort())

    def matrix(self, measure: str = "e_sem") -> Matrix:
        """Return a measure as prompts × adapters, controls left out.

        Args:
            measure: `e_sem`, `e_sem_signed` or `e_per`.

        Raises:
            InputError: another measure is asked for.
        """
        known = [known.name for known in IN_MAP]
        if measure not in known:
            raise InputError(f"measure {measure!r}", "is not in the map", f"use one of {', '.join(known)}")
        cells = measured(self.map).sort("prompt_id", "adapter")
        prompts = cells.select("prompt_id", "prompt").unique(maintain_order=True)
        values = cells[measure].cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(prompts.height, -1)
        return Matrix(measure, values, tuple(prompts["prompt"]), tuple(prompts["prompt_id"]), self.adapters)

    def __repr__(self) -> str:
        prompts = self.map["prompt_id"].n_unique()
        return f"<run {plain(str(self.folder))}: {prompts} prompts × {len(self.adapters)} adapters>"

    def __rich__(self) -> Table:
        table = Table(title=shown(repr(self)), title_justify="left")
        for name in _COLUMNS:
            table.add_column(name)
        for row in self._rows():
            table.add_row(*map(shown, row))
        return table

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(plain(value))}</td>" for value in row) + "</tr>" for row in self._rows()
        )
        caption = f"<caption>{escape(repr(self))}, means over non-target prompts</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _rows(self) -> list[tuple[str, ...]]:
        """Return one row per adapter, whose columns are _COLUMNS."""
        return [
            (a["adapter"], a["method"], *map(estimate, (a["e_sem"], a["e_sem_signed"], a["e_per"])))
            for a in self.statistics["adapters"]
        ]


def open_run(folder: str | Path) -> Run:
    """Open a run folder: a path, or a URL such as s3://bucket/run.

    Raises:
        InputError: it holds no map.
    """
    return open_folder(place(str(folder)))


def open_folder(folder: Path) -> Run:
    """Open a run folder whose place is known.

    Raises:
        InputError: it holds no map.
    """
    if not (folder / "map.arrow").exists():
        raise InputError(str(folder), "holds no map", "give a folder that `raymap run` or `raymap stats` wrote")
    return Run(folder)


def read_run(folder: Path) -> Run:
    """Open a run folder for a report, and check at once that what reports are made from is there.

    Raises:
        InputError: map.arrow, shifts.arrow or statistics.json is missing, or scores/ breaks the contract.
    """
    paths = [folder / name for name in NEEDED]
    for path, content in zip(paths, read_each(paths), strict=True):
        if content is None:
            raise InputError(str(path), "is missing", f"write it with `raymap stats {folder}`")
    run = Run(folder)
    _ = run.scores
    return run
