"""Exchangeability tests of many cells at once: the same matchings or flips are drawn or enumerated for all cells.

A p-value of up to STOP / (DRAWN + 1), which is 5 %, rests on all DRAWN matchings. For a larger one, drawing stops at
the STOP-th matching that reaches the observed mean: p = h / l if the h-th one that reaches it is the l-th drawn, which
is as valid as a fixed number of draws (Besag & Clifford 1991, Biometrika 78, 301-304). Where all matchings are
enumerated, p is exact and nothing stops early.
"""

from __future__ import annotations

import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import stats

DRAWN = 1_999
STOP = 100
VALUES = 400_000
"""How many numbers are worked on at a time, so that they stay in the processor's cache."""
TIE = 1e-12
"""Means that differ by less are equal: their terms were only added in another order."""


def matching_p(base: np.ndarray, adapted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return, for each row, the share of perfect matchings of its 2K values whose mean |difference| is as large.

    Args:
        base, adapted: float (cells, K), K ≥ 2. Up to K = 5 all matchings (945) are counted. For a larger K up to DRAWN
            are drawn, and the observed matching counts as one more (Phipson & Smyth 2010).
    """
    k = base.shape[1]
    everything = k <= 5
    if everything:
        pairs = np.array(list(_matchings(tuple(range(2 * k)))))
    else:
        pairs = np.array([rng.permutation(2 * k).reshape(k, 2) for _ in range(DRAWN)])
    first, second = np.triu_indices(2 * k, 1)
    number = np.zeros((2 * k, 2 * k), np.intp)
    number[first, second] = number[second, first] = np.arange(len(first))
    matchings = number[pairs[..., 0], pairs[..., 1]]

    step = max(VALUES // len(first), 1)

    def share(start: int) -> np.ndarray:
        part = slice(start, start + step)
        values = np.concatenate([base[part], adapted[part]], axis=1).T
        differences = np.abs(values[first] - values[second])
        observed = np.abs(adapted[part] - base[part]).sum(axis=1) - k * TIE
        return _share(differences, matchings, observed, everything)

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # numpy releases Python's lock while it computes
        return np.concatenate(list(threads.map(share, range(0, len(base), step))))


def _share(differences: np.ndarray, matchings: np.ndarray, observed: np.ndarray, everything: bool) -> np.ndarray:
    """Return the p-values (n,) of sums over `matchings` (B, K), which name K rows of `differences`, (pairs, n)."""
    p, reached, left = np.empty(len(observed)), np.zeros(len(observed), np.intp), np.arange(len(observed))
    for start in range(0, len(matchings), STOP):
        block = matchings[start : start + STOP]
        reaches = np.array([differences[matching].sum(axis=0) >= observed for matching in block])
        totals = reached + reaches.cumsum(axis=0)
        stopped = (totals[-1] >= STOP) & (not everything)
        if stopped.any():
            p[left[stopped]] = STOP / (start + 1 + (totals[:, stopped] >= STOP).argmax(axis=0))
            differences, observed, left = differences[:, ~stopped], observed[~stopped], left[~stopped]
        reached = totals[-1, ~stopped]
        if not len(left):
            return p
    extra = 0 if everything else 1
    p[left] = (reached + extra) / (len(matchings) + extra)
    return p


def _matchings(items: tuple[int, ...]) -> list[tuple[tuple[int, int], ...]]:
    if not items:
        return [()]
    first, rest = items[0], items[1:]
    return [
        ((first, other), *others) for k, other in enumerate(rest) for others in _matchings(rest[:k] + rest[k + 1 :])
    ]


def sign_flip_p(differences: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the two-sided sign-flip p-value of each row's mean, from all 2^K flips up to K = 11, else from DRAWN ones.

    Args:
        differences: float (cells, K). A flip and its opposite have the same |mean|, so only half of them are counted.
    """
    k = differences.shape[1]
    if k <= 11:
        signs, extra = np.array([(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=k - 1)]), 0
    else:
        signs, extra = rng.choice((1.0, -1.0), (DRAWN, k)), 1
    found, step = np.empty(len(differences)), VALUES // len(signs)
    for start in range(0, len(differences), step):
        part = differences[start : start + step]
        observed = np.abs(part.sum(axis=1, keepdims=True)) - TIE
        found[start : start + step] = (np.abs(part @ signs.T) >= observed).sum(axis=1) + extra
    return found / (len(signs) + extra)


def rank_sum_p(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return each row's one-sided exact Mann-Whitney p-value for `high` (cells, K) lying above `low` (cells, L).

    It depends on U alone, so scipy is asked once for each value of U, with a row that has it.
    """
    u, step = np.empty(len(high)), max(VALUES // (high.shape[1] * low.shape[1]), 1)
    for start in range(0, len(high), step):
        part = slice(start, start + step)
        x, y = high[part, :, None], low[part, None, :]
        u[part] = ((x > y) + 0.5 * (x == y)).sum(axis=(1, 2))
    _, rows, of = np.unique(u, return_index=True, return_inverse=True)
    known = stats.mannwhitneyu(high[rows], low[rows], alternative="greater", method="exact", axis=1)
    return np.asarray(known.pvalue[of])


def least_matching_p(seeds: int) -> float:
    """Return the least p-value that `matching_p` can give a cell of K seeds.

    The largest mean difference pairs the upper half of the 2K values with the lower half, which K! of the (2K - 1)!!
    matchings do: 2^K / C(2K, K). A share that is estimated from DRAWN matchings is never below 1 / (DRAWN + 1).
    """
    return max(2**seeds / math.comb(2 * seeds, seeds), 1 / (DRAWN + 1))


def least_sign_flip_p(seeds: int) -> float:
    """Return the least p-value that `sign_flip_p` can give a cell of K seeds: 2 / 2^K, not below 1 / (DRAWN + 1)."""
    return max(min(2 / 2**seeds, 1.0), 1 / (DRAWN + 1))


def least_rank_sum_p(high: int, low: int) -> float:
    """Return the least p-value that `rank_sum_p` can give for so many values: one order of C(K + L, K)."""
    return 1 / math.comb(high + low, high)
