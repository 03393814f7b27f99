"""A run's results in Python: the map as a table and as an array, scores, tests and statistics. No torch, no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.table import Table

from raymap.analysis.map import measured
from raymap.analysis.measures import IN_MAP
from raymap.analysis.read import read_map, read_noise, read_scores, read_statistics
from raymap.display.text import plain, shown
from raymap.errors import InputError

MEASURES = {measure.name: measure for measure in IN_MAP}
_COLUMNS = ("adapter", "method", "E_sem", "signed", "E_per")


@dataclass(frozen=True)
class Matrix:
    """One measure of the map as an array.

    Attributes:
        values: float64 (P, S), NaN where a cell was not measured. `np.asarray(matrix)` is the same array.
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
        """Prompts × adapters."""
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
    def map(self) -> pl.DataFrame:
        """The entanglement map, a row a (prompt, adapter), identity controls included (schema MAP)."""
        return read_map(self.folder)

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """What statistics.json holds."""
        return read_statistics(self.folder)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """The scores, a row an (adapter, prompt, seed) (schema SCORES)."""
        return read_scores(self.folder)

    @cached_property
    def noise(self) -> pl.DataFrame:
        """What re-seeding does, a row a pair of base seeds (schema NOISE)."""
        return read_noise(self.folder)

    @cached_property
    def shifts(self) -> pl.DataFrame:
        """p- and q-values of each cell (schema SHIFTS)."""
        return pl.read_ipc((self.folder / "shifts.arrow").read_bytes())

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters in order, controls left out."""
        return tuple(measured(self.map)["adapter"].unique().sort())

    def matrix(self, measure: str = "e_sem") -> Matrix:
        """Return a measure as prompts × adapters, controls left out.

        Args:
            measure: `e_sem`, `e_sem_signed` or `e_per`.

        Raises:
            InputError: another measure.
        """
        if measure not in MEASURES:
            raise InputError(f"measure {measure!r}", "is not in the map", f"use one of {', '.join(MEASURES)}")
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
        return [
            (
                a["adapter"],
                a["method"],
                *(_estimate(a[name]) for name in MEASURES),
            )
            for a in self.statistics["adapters"]
        ]


def _estimate(e: dict[str, Any]) -> str:
    if e["value"] is None:
        return "–"
    return f"{e['value']:.4f}" + ("" if e["low"] is None else f" [{e['low']:.4f}, {e['high']:.4f}]")


def open_folder(folder: Path) -> Run:
    """Open a run folder.

    Raises:
        InputError: no map lies there.
    """
    if not (folder / "map.arrow").exists():
        raise InputError(str(folder), "holds no map", "give a folder that `raymap run` or `raymap stats` wrote")
    return Run(folder)
