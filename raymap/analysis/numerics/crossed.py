"""Means and contrasts of a prompt × adapter matrix whose rows and columns are both samples.

Cells of one prompt share the prompt and cells of one subject share the subject, so they are not independent: an
interval has to carry the spread between prompts *and* between subjects. An estimate here is a mean, or a difference of
means, over groups of rows and groups of columns. Its variance is the variance between columns plus the variance between
rows minus what both count twice, each of them a Welch variance of its groups. Quantiles are Student's t with
Satterthwaite's degrees of freedom (Satterthwaite 1946; the two-way form is Cameron, Gelbach & Miller 2011, eq. 2.11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special, stats

from raymap.analysis.estimates import Crossed, CrossedTested

CONFIDENCE = 0.95
SPLITS = 100_000
"""The most permutations of subjects that are all enumerated (9 and 9 subjects have fewer); else so many are drawn."""

Alternative = Literal["two-sided", "greater", "less"]

BOTH = "t interval, variance between prompts plus between subjects (two-way), Satterthwaite df"
PROMPTS = "t interval, variance between prompts; a single subject, so it holds for this subject"
SUBJECTS = "t interval, variance between subjects; a single prompt, so it holds for this prompt"
ALONE = {PROMPTS: "over prompts alone", SUBJECTS: "over subjects alone"}
"""What an interval generalises over when it is not two-way, in a few words."""


def over(estimate: Crossed) -> str | None:
    """Return what an estimate's interval generalises over; None if it has no interval."""
    return None if estimate["low"] is None else ALONE.get(estimate["method"], "over prompts and subjects")


@dataclass(frozen=True)
class Group:
    """Rows or columns whose mean enters a contrast, and the weight of that mean (1, or 1 and -1 of a difference)."""

    members: np.ndarray
    weight: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95 % interval, its p-value against 0, and what it rests on.

    `prompts` and `subjects` count the rows and columns that were used, `df` are the degrees of freedom of the interval.
    Where a number is None, `reason` says why.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    df: float | None
    prompts: int
    subjects: int
    method: str
    reason: str | None = None

    def as_dict(self) -> Crossed:
        """Return the estimate as JSON files hold it."""
        return {
            "value": self.value, "low": self.low, "high": self.high, "n": self.prompts, "subjects": self.subjects,
            "df": self.df, "method": self.method, "reason": self.reason,
        }  # fmt: skip

    def tested(self) -> CrossedTested:
        """Return the same with the p-value."""
        return {**self.as_dict(), "p": self.p}


def contrast(
    cells: np.ndarray, rows: Sequence[Group], columns: Sequence[Group], alternative: Alternative = "two-sided"
) -> Estimate:
    """Estimate Σ_r Σ_c w_r w_c mean(cells[r, c]), where rows (prompts) and columns (subjects) are both random.

    Args:
        cells: float (P, S). Rows with a NaN in a used column are left out and not counted.
        rows: groups of row numbers that do not overlap.
        columns: groups of column numbers that do not overlap.

    Returns:
        The estimate. Where a group has a single member, the spread over that side is unknown, and `method` says so.
    """
    used = np.concatenate([group.members for group in columns]) if columns else np.empty(0, int)
    complete = ~np.isnan(cells[:, used]).any(axis=1)
    rows = [Group(group.members[complete[group.members]], group.weight) for group in rows]
    n_rows, n_columns = sum(len(group.members) for group in rows), len(used)
    if any(len(group.members) == 0 for group in (*rows, *columns)):
        return Estimate(None, None, None, None, None, n_rows, n_columns, "none", "a group has no complete cell")
    of_rows = [_mean_of(cells[group.members], columns, axis=1) for group in rows]
    of_columns = [_mean_of(cells[:, group.members], rows, axis=0) for group in columns]
    value = float(sum(group.weight * part.mean() for group, part in zip(rows, of_rows, strict=True)))
    by_row, by_column = _parts(rows, of_rows), _parts(columns, of_columns)
    if by_row is None and by_column is None:
        reason = "one prompt and one subject have no spread"
        return Estimate(value, None, None, None, None, n_rows, n_columns, "none", reason)
    method = BOTH if by_row and by_column else PROMPTS if by_row else SUBJECTS
    variance, df = combined(by_row, by_column, _interaction(cells, rows, columns) if by_row and by_column else 0.0)
    if variance == 0:
        reason = "all values are equal: no spread to judge by"
        return Estimate(value, value, value, None, None, n_rows, n_columns, method, reason)
    error = variance**0.5
    reach = float(special.stdtrit(df, (1 + CONFIDENCE) / 2)) * error  # scipy.stats.t's own, without its overhead
    p = {
        "two-sided": 2 * special.stdtr(df, -abs(value) / error),
        "greater": special.stdtr(df, -value / error),
        "less": special.stdtr(df, value / error),
    }[alternative]
    return Estimate(value, value - reach, value + reach, float(p), df, n_rows, n_columns, method)


def _mean_of(part: np.ndarray, groups: Sequence[Group], axis: int) -> np.ndarray:
    """Return the weighted sum of the groups' means along an axis."""
    return np.sum([g.weight * part.take(g.members, axis=axis).mean(axis=axis) for g in groups], axis=0)


def _parts(groups: Sequence[Group], values: list[np.ndarray]) -> list[tuple[float, int]] | None:
    """Return each group's part of the variance and its degrees of freedom; None if a group has a single member."""
    if any(len(group.members) < 2 for group in groups):
        return None
    return [
        (group.weight**2 * float(part.var(ddof=1)) / len(part), len(part) - 1)
        for group, part in zip(groups, values, strict=True)
    ]


def combined(
    by_row: list[tuple[float, int]] | None, by_column: list[tuple[float, int]] | None, twice: float
) -> tuple[float, float]:
    """Return the variance, which is never below that of one side alone, and its degrees of freedom."""
    sides = [side for side in (by_row, by_column) if side is not None]
    totals = [sum(v for v, _ in side) for side in sides]
    variance = max(sum(totals) - twice, *totals, 0.0)
    spread = sum(v**2 / df for side in sides for v, df in side)
    return variance, max(variance**2 / spread, 1.0) if spread else 1.0


def _interaction(cells: np.ndarray, rows: Sequence[Group], columns: Sequence[Group]) -> float:
    """Return the variance that single cells add to both sides: the variance of residuals from row and column means."""
    total = 0.0
    for r in rows:
        for c in columns:
            part = cells[np.ix_(r.members, c.members)]
            residual = part - part.mean(0) - part.mean(1, keepdims=True) + part.mean()
            n, m = part.shape
            total += (r.weight * c.weight) ** 2 * float((residual**2).sum()) / ((n - 1) * (m - 1) * n * m)
    return total


def permuted(one: np.ndarray, other: np.ndarray, alternative: Alternative = "two-sided") -> float | None:
    """Return the p-value of a difference of means between two groups of subjects, by permutation of their labels.

    The prompts are held fixed. The test is exact for up to SPLITS splits; 5 and 5 subjects have 252 splits, so no
    one-sided p-value of theirs is below 1/252.

    Args:
        one, other: one number per subject.

    Returns:
        None if a group has fewer than two members: a single subject could never be told from the others.
    """
    if min(len(one), len(other)) < 2:
        return None

    def difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return x.mean(axis=axis) - y.mean(axis=axis)

    result = stats.permutation_test(
        (one, other), difference, vectorized=True, n_resamples=SPLITS, alternative=alternative,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(result.pvalue)
