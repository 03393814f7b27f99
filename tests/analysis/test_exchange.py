"""Tests of many cells at once: the same as one by one, and valid where they stop early."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from raymap.analysis.numerics.exchange import DRAWN, STOP, matching_p, rank_sum_p, sign_flip_p


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray]:
    """Base and adapted cosines (2500, 10): fresh draws, then ones that are shifted, or close to their base."""
    rng = np.random.default_rng(0)
    base = rng.normal(0.25, 0.02, (2_500, 10))
    adapted = rng.normal(0.25, 0.02, base.shape)
    adapted[2_000:2_250] = base[2_000:2_250] - rng.normal(0.04, 0.02, (250, 10))
    adapted[2_250:2_400] = base[2_250:2_400] + rng.normal(0, 0.002, (150, 10))
    adapted[2_400:] = base[2_400:]
    return base, adapted


def test_small_p_values_are_the_share_of_all_drawn_and_larger_ones_stop_at_the_hundredth(
    cells: tuple[np.ndarray, np.ndarray],
) -> None:
    base, adapted = cells
    p = matching_p(base, adapted, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    matchings = [rng.permutation(20).reshape(10, 2) for _ in range(DRAWN)]
    values = np.concatenate([base, adapted], axis=1)
    observed = np.abs(base - adapted).mean(axis=1)
    reaches = np.array(
        [np.abs(values[:, m[:, 0]] - values[:, m[:, 1]]).mean(axis=1) >= observed - 1e-12 for m in matchings]
    )
    kinds = set()
    for k in range(len(p)):
        hits = np.flatnonzero(reaches[:, k])
        stopped = len(hits) >= STOP
        kinds.add(stopped)
        assert p[k] == pytest.approx(STOP / (hits[STOP - 1] + 1) if stopped else (len(hits) + 1) / (DRAWN + 1))
    assert kinds == {True, False}
    assert (p[2_400:] == 1).all()


def test_stopping_early_leaves_the_level_what_it_says(cells: tuple[np.ndarray, np.ndarray]) -> None:
    """Fresh draws of the base: P(p <= a) is a, to four standard errors, at every level."""
    p = matching_p(cells[0][:2_000], cells[1][:2_000], np.random.default_rng(2))
    for level in (0.01, 0.05, 0.2, 0.5, 0.9):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2_000))


def test_rank_sums_are_scipys_row_by_row_ties_included() -> None:
    rng = np.random.default_rng(3)
    high, low = rng.integers(0, 9, (60, 5)).astype(float), rng.integers(0, 9, (60, 3)).astype(float)
    for row, p in enumerate(rank_sum_p(high, low)):
        assert p == stats.mannwhitneyu(high[row], low[row], alternative="greater", method="exact").pvalue


def test_the_smallest_p_is_that_of_all_matchings_across_the_median() -> None:
    """They all have the largest sum: K! of (2K - 1)!! matchings."""
    base, adapted = np.arange(4.0)[None], 10 + np.arange(4.0)[None]
    assert matching_p(base, adapted, np.random.default_rng(0))[0] == pytest.approx(24 / 105)


def test_half_of_the_flips_stand_for_all() -> None:
    d = np.random.default_rng(4).normal(0.2, 1, (5, 6))
    d[4] = 0.0
    for row, p in enumerate(sign_flip_p(d, np.random.default_rng(0))):
        means = [abs(np.mean(d[row] * signs)) for signs in itertools.product((1, -1), repeat=6)]
        assert p == pytest.approx(np.mean(np.array(means) >= abs(d[row].mean()) - 1e-12))
