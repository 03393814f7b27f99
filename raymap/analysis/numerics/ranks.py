"""Rank correlations, with intervals by resampling."""

from __future__ import annotations

import numpy as np
from scipy import stats

from raymap.analysis.estimates import Interval
from raymap.analysis.numerics.crossed import CONFIDENCE

RESAMPLES = 2_000


class RankCorrelation(Interval):
    """A mean of Spearman's ρ over `adapters` adapters, each over `n` prompts."""

    by_adapter: list[float]
    n: int
    adapters: int
    method: str
    reason: str | None


def rank_correlation(x: np.ndarray, y: np.ndarray) -> RankCorrelation:
    """Return the mean over adapters of Spearman's ρ over prompts, with an interval that resamples both.

    Args:
        x, y: float (P, S), prompts by adapters.

    Returns:
        The mean with a percentile bootstrap interval over prompts and adapters (over prompts alone if there is a single
        adapter). Adapters whose values are all equal have no ranks and are left out.
    """
    able = (np.ptp(x, axis=0) > 0) & (np.ptp(y, axis=0) > 0) if len(x) > 2 else np.zeros(x.shape[1], bool)
    x, y = x[:, able], y[:, able]
    prompts, adapters = x.shape
    method = f"{CONFIDENCE:.0%} percentile bootstrap over prompts and adapters, {RESAMPLES} resamples"
    if not adapters:
        return {"value": None, "low": None, "high": None, "by_adapter": [], "reason": "no ranks to compare",
                "n": prompts, "adapters": adapters, "method": method}  # fmt: skip
    rng = np.random.default_rng(0)
    drawn = [(rng.integers(prompts, size=prompts), rng.integers(adapters, size=adapters)) for _ in range(RESAMPLES)]
    rows, columns = (
        np.array([np.bincount(sample[k], minlength=n) for sample in drawn]) for k, n in enumerate((prompts, adapters))
    )
    resampled = resampled_spearman(x, y, rows)
    known = columns * ~np.isnan(resampled)
    with np.errstate(invalid="ignore"):
        means = np.nansum(known * resampled, axis=1) / known.sum(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    rho = spearman(x, y)
    return {"value": float(rho.mean()), "low": float(low), "high": float(high), "by_adapter": rho.tolist(),
            "reason": None, "n": prompts, "adapters": adapters, "method": method}  # fmt: skip


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's ρ (Pearson's of mid-ranks) of each column; NaN for a constant column."""
    a, b = (stats.rankdata(values, axis=0) - (len(values) + 1) / 2 for values in (x, y))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))


def resampled_spearman(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Spearman's ρ of each column in B resamples of the rows, float (B, S); NaN where a column is constant.

    Args:
        x, y: float (P, S).
        counts: int (B, P), how often each row is in a resample; each resample holds P rows.
    """
    found = np.empty((len(counts), x.shape[1]))
    for k in range(x.shape[1]):
        a, b = (_mid_ranks(column[:, k], counts) - (len(x) + 1) / 2 for column in (x, y))
        squares = (counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1)
        with np.errstate(invalid="ignore"):
            found[:, k] = (counts * a * b).sum(axis=1) / np.sqrt(squares)
    return found


def _mid_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mid-rank of each row, float (B, P), if every row is there as often as `counts` (B, P) says."""
    order, (_, group, sizes) = (
        np.argsort(values, kind="stable"),
        np.unique(values, return_inverse=True, return_counts=True),
    )
    tied = np.add.reduceat(counts[:, order], np.cumsum(sizes) - sizes, axis=1)
    ranks: np.ndarray = (tied.cumsum(axis=1) - tied + (tied + 1) / 2)[:, group]
    return ranks
