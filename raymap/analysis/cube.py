"""The map as an array: prompts × subjects × methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from raymap.analysis.numerics.crossed import Group
from raymap.study.subject import OWN_CATEGORY


@dataclass(frozen=True)
class Cube:
    """One measure of every prompt, subject and method, float64 (P, S, M); NaN without such an adapter or cell."""

    values: np.ndarray
    prompts: tuple[str, ...]
    prompt_categories: np.ndarray
    subjects: tuple[str, ...]
    subject_categories: np.ndarray
    methods: tuple[str, ...]

    def over_methods(self) -> np.ndarray:
        """Return means over each subject's methods, (P, S); NaN where any method of the subject lacks the cell.

        For means over the methods that draw, the cube is made from the cells that `moving` returns.
        """
        has = ~np.isnan(self.values).all(axis=0)  # (S, M)
        total = np.where(has, self.values, 0.0).sum(axis=2)
        n = has.sum(axis=1)
        return np.where(n > 0, total / np.maximum(n, 1), np.nan)

    def method(self, name: str) -> np.ndarray:
        """Return one method's cells, (P, S)."""
        return self.values[:, :, self.methods.index(name)]

    def rows(self, categories: set[str], weight: float = 1.0) -> Group:
        """Return the prompts of some categories."""
        return Group(np.flatnonzero(np.isin(self.prompt_categories, sorted(categories))), weight)

    def columns(self, category: str, weight: float = 1.0, having: np.ndarray | None = None) -> Group:
        """Return the subjects of a category; with `having` (P, S), only subjects that have a cell there."""
        chosen = self.subject_categories == category
        if having is not None:
            chosen = chosen & ~np.isnan(having).all(axis=0)
        return Group(np.flatnonzero(chosen), weight)

    def non_target(self, *subject_categories: str) -> set[str]:
        """Return the prompt categories that are not a target of any of these subject categories."""
        return set(self.prompt_categories.tolist()) - {OWN_CATEGORY.get(c, "") for c in subject_categories}


def moving(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the cells without adapters that shift nothing, unless all adapters of their subject shift nothing.

    A mean over a subject's methods is thus one over the methods that draw: a proved zero is not a measurement.

    Args:
        cells: rows of schema MAP without controls.
    """
    still = (pl.col("e_sem").max() == 0).fill_null(False).over("adapter")
    return cells.filter(~still | still.all().over("subject", "subject_category"))


def cubes_of(cells: pl.DataFrame, *measures: str) -> list[Cube]:
    """Arrange columns of the map as arrays, one cube per column.

    Args:
        cells: rows of schema MAP without controls. A second adapter of the same subject, subject category and method
            counts as a subject of its own.
    """
    own = ["subject", "subject_category", "nth"]
    nth = pl.col("adapter").rank("dense").over("subject", "subject_category", "method")
    cells = cells.with_columns(nth=nth)
    prompts = cells.select("prompt_id", "prompt_category").unique().sort("prompt_id")
    subjects = cells.select(own).unique().sort(own)
    methods = cells["method"].unique().sort()
    numbers = (
        frame.select(keys).with_row_index("at")
        for frame, keys in ((prompts, ["prompt_id"]), (subjects, own), (methods.to_frame(), ["method"]))
    )
    at = tuple(
        cells.join(held, on=held.columns[1:], how="left", maintain_order="left")["at"].to_numpy() for held in numbers
    )
    cubes = []
    for measure in measures:
        values = np.full((len(prompts), len(subjects), len(methods)), np.nan)
        values[at] = cells[measure].cast(pl.Float64).fill_null(np.nan).to_numpy()
        cubes.append(
            Cube(
                values,
                tuple(prompts["prompt_id"]),
                prompts["prompt_category"].to_numpy(),
                tuple(subjects["subject"]),
                subjects["subject_category"].to_numpy(),
                tuple(methods),
            )
        )
    return cubes
