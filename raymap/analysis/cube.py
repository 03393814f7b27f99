"""The map as an array: prompts × subjects × methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from raymap.analysis.crossed import Group
from raymap.study import OWN_CATEGORY


@dataclass(frozen=True)
class Cube:
    """One measure of every (prompt, subject, method), float64 (P, S, M), NaN where there is no such adapter or cell."""

    values: np.ndarray
    prompts: tuple[str, ...]
    prompt_categories: np.ndarray
    subjects: tuple[str, ...]
    subject_categories: np.ndarray
    methods: tuple[str, ...]

    def over_methods(self) -> np.ndarray:
        """Return means over each subject's methods, (P, S); NaN where one that the subject has lacks the cell."""
        has = ~np.isnan(self.values).all(axis=0)  # (S, M)
        total = np.where(has, self.values, 0.0).sum(axis=2)
        with np.errstate(invalid="ignore"):
            return np.where(has.any(axis=1), total / has.sum(axis=1), np.nan)

    def method(self, name: str) -> np.ndarray:
        """Return one method's cells, (P, S)."""
        return self.values[:, :, self.methods.index(name)]

    def rows(self, categories: set[str], weight: float = 1.0) -> Group:
        """Return the prompts of some categories."""
        return Group(np.flatnonzero(np.isin(self.prompt_categories, sorted(categories))), weight)

    def columns(self, category: str, weight: float = 1.0, having: np.ndarray | None = None) -> Group:
        """Return the subjects of a category; with `having` (P, S), only those with any cell there."""
        chosen = self.subject_categories == category
        if having is not None:
            chosen = chosen & ~np.isnan(having).all(axis=0)
        return Group(np.flatnonzero(chosen), weight)

    def non_target(self, *subject_categories: str) -> set[str]:
        """Return the prompt categories that are no target of these subject categories."""
        return set(self.prompt_categories.tolist()) - {OWN_CATEGORY.get(c, "") for c in subject_categories}


def cube_of(cells: pl.DataFrame, measure: str) -> Cube:
    """Arrange a column of the map (controls left out by the caller) as an array.

    Args:
        cells: rows of schema MAP; where two adapters are one (subject, method), the later one in order of name counts.
    """
    prompts = cells.select("prompt_id", "prompt_category").unique().sort("prompt_id")
    subjects = cells.select("subject", "subject_category").unique().sort("subject")
    methods = cells["method"].unique().sort()
    values = np.full((len(prompts), len(subjects), len(methods)), np.nan)
    at = [{name: k for k, name in enumerate(names)} for names in (prompts["prompt_id"], subjects["subject"], methods)]
    ordered = cells.sort("adapter")
    keys = ordered.select("prompt_id", "subject", "method").rows()
    for key, value in zip(keys, ordered[measure].to_list(), strict=True):
        values[tuple(index[name] for index, name in zip(at, key, strict=True))] = np.nan if value is None else value
    return Cube(
        values,
        tuple(prompts["prompt_id"]),
        prompts["prompt_category"].to_numpy(),
        tuple(subjects["subject"]),
        subjects["subject_category"].to_numpy(),
        tuple(methods),
    )
