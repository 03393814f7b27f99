"""The paper's three hypotheses, tested as the paper tests them and as crossed prompts and subjects require.

*Pooled* is the paper's test (sections 5.1 to 5.3): a Mann-Whitney U for which every cell of the map, under every
method, is an independent observation. Cells that share a prompt or a subject are not independent, so its p-values are
far too small (benchmarks/calibration.py). *Crossed* averages each subject's methods that draw and takes both prompts
and subjects as samples (raymap.analysis.numerics.crossed). *Permutation* holds the prompts fixed and exchanges the
subjects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from raymap.analysis.cube import Cube, cubes_of, moving
from raymap.analysis.numerics.crossed import Alternative, Estimate, Group, contrast, permuted
from raymap.analysis.statistics import HypothesisRow, PooledTest


@dataclass(frozen=True)
class Pooled:
    """A Mann-Whitney U over cells.

    `common_language` is the share of pairs of cells of which the first group's is larger; ties count half.
    """

    u: float
    p: float
    common_language: float
    n_first: int
    n_second: int

    def as_dict(self) -> PooledTest:
        """Return the test as statistics.json holds it."""
        return {
            "test": "Mann-Whitney U over pooled cells (the paper's; assumes independent cells)",
            "u": self.u, "p": self.p, "common_language": self.common_language,
            "rank_biserial": 2 * self.common_language - 1, "n": [self.n_first, self.n_second],
        }  # fmt: skip


def pooled(first: np.ndarray, second: np.ndarray, alternative: Alternative) -> Pooled | None:
    """Return the pooled test without NaN cells; None if a group is empty."""
    first, second = (part[~np.isnan(part)] for part in (first.ravel(), second.ravel()))
    if not len(first) or not len(second):
        return None
    u, p = stats.mannwhitneyu(first, second, alternative=alternative)
    return Pooled(float(u), float(p), float(u) / (len(first) * len(second)), len(first), len(second))


def holm(p_values: list[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values (Holm 1979) in the given order; None stays None and is not counted."""
    known = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[k] = largest
    return adjusted


def hypotheses(study: pl.DataFrame) -> list[HypothesisRow]:
    """Return H1, H2 (overall and by prompt category) and H3 of E_sem, with estimates, tests and effect sizes.

    If a group is missing, the `reason` of the entry says so.

    Args:
        study: the map without its controls.
    """
    if study.is_empty():
        return []
    (cube,) = cubes_of(study, "e_sem")
    means = cubes_of(moving(study), "e_sem")[0].over_methods()
    claims = [
        _within("H1", cube, means, "face", "people", "face adapters shift people prompts more than others"),
        _between("H2", cube, means, "style", "face", None),
        _between("H3 object above face", cube, means, "object", "face", None),
        _between("H3 style above object", cube, means, "style", "object", None),
    ]
    for entry, p in zip(claims, holm([entry["p"] for entry in claims]), strict=True):
        entry["p_holm"] = p
    explored = [
        _between(f"H2 {category}", cube, means, "style", "face", {category})
        for category in sorted(set(cube.prompt_categories.tolist()))
    ]
    known = [entry["p"] for entry in explored if entry["p"] is not None]
    adjusted = iter(stats.false_discovery_control(known) if known else ())
    for entry in explored:
        entry["q_bh"] = None if entry["p"] is None else float(next(adjusted))
    return [*claims, *explored]


def _within(name: str, cube: Cube, means: np.ndarray, subjects: str, prompts: str, claim: str) -> HypothesisRow:
    """Compare two groups of prompts under the adapters of one subject category."""
    others = set(cube.prompt_categories.tolist()) - {prompts}
    own, rest, columns = cube.rows({prompts}), cube.rows(others, -1.0), cube.columns(subjects)
    estimate = contrast(means, (own, rest), (columns,), "greater")
    cells = cube.values[:, columns.members]
    return _entry(name, claim, estimate, pooled(cells[own.members], cells[rest.members], "greater"), None)


def _between(
    name: str, cube: Cube, means: np.ndarray, high: str, low: str, categories: set[str] | None
) -> HypothesisRow:
    """Compare the adapters of two subject categories over given prompts, or over those that are no target of either.

    A claim about categories of subjects has no p if one of them has a single subject, whose spread is not known.
    """
    rows = cube.rows(categories or cube.non_target(high, low))
    first, second = cube.columns(high), cube.columns(low, -1.0)
    estimate = contrast(means, (rows,), (first, second), "greater")
    one, other = (_subject_means(means, rows, group) for group in (first, second))
    scopes = [categories or cube.non_target(category) for category in (high, low)]
    high_cells, low_cells = (
        cube.values[np.ix_(cube.rows(scope).members, group.members)]
        for scope, group in zip(scopes, (first, second), strict=True)
    )
    scope = ", ".join(sorted(categories)) if categories else f"prompts that are no target of {high} or {low}"
    claim = f"{high} adapters shift more than {low} adapters ({scope})"
    entry = _entry(name, claim, estimate, pooled(high_cells, low_cells, "greater"), permuted(one, other, "greater"))
    single = [category for category, group in ((high, first), (low, second)) if len(group.members) == 1]
    if entry["p"] is not None and single:
        entry["p"] = None
        entry["reason"] = f"a single {' and a single '.join(single)} subject: no spread between subjects"
    return entry


def _subject_means(means: np.ndarray, rows: Group, columns: Group) -> np.ndarray:
    part = means[np.ix_(rows.members, columns.members)]
    complete = part[~np.isnan(part).any(axis=1)]
    return complete.mean(axis=0) if len(complete) else np.empty(0)


def _entry(name: str, claim: str, estimate: Estimate, pool: Pooled | None, permutation: float | None) -> HypothesisRow:
    return {
        "hypothesis": name,
        "claim": claim,
        "alternative": "greater",
        "difference": estimate.as_dict(),
        "p": estimate.p,
        "p_subject_permutation": permutation,
        "pooled": pool.as_dict() if pool else None,
        "reason": estimate.reason,
    }
