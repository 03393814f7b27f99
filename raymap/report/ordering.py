"""An order of rows and columns that puts similar ones side by side."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage


def cluster_order(values: np.ndarray) -> list[int]:
    """Return the rows in the leaf order of their average-linkage clustering by Euclidean distance.

    The leaves are ordered optimally (Bar-Joseph et al. 2001, as scipy implements it).

    Args:
        values: float (rows, columns). NaN counts as the mean of its column, and as 0 in a column without any number.
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
    """Return values divided by their standard deviation, so that measures of different sizes weigh the same."""
    spread = np.nanstd(values) if (~np.isnan(values)).any() else 0.0
    return values / spread if spread > 0 else values
