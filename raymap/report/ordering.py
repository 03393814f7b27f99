"""The order of rows and columns in which like stands beside like."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage


def cluster_order(values: np.ndarray) -> list[int]:
    """Return the leaf order of an average-linkage clustering of rows (Euclidean, optimally ordered).

    Optimal ordering: Bar-Joseph et al. 2001, as scipy implements it.

    Args:
        values: float (rows, columns); NaN counts as its column's mean, a column without any number as 0.
    """
    rows, _ = values.shape
    if rows < 3:
        return list(range(rows))
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    means = np.divide(np.where(known, values, 0.0).sum(axis=0), n, out=np.zeros(values.shape[1]), where=n > 0)
    filled = np.where(known, values, means)
    return [int(k) for k in leaves_list(linkage(filled, "average", optimal_ordering=True))]


def standardized(values: np.ndarray) -> np.ndarray:
    """Return values divided by their standard deviation, so that measures of different size weigh alike."""
    spread = np.nanstd(values) if (~np.isnan(values)).any() else 0.0
    return values / spread if spread > 0 else values
