"""Tests of many cells at once: the same as one by one, and valid where they stop early."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from raymap.analysis.numerics.exchange import (
    DRAWN,
    STOP,
    least_matching_p,
    least_rank_sum_p,
    least_sign_flip_p,
    matching_p,
    rank_sum_p,
    sign_flip_p,
)


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


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_the_least_p_of_few_seeds_is_the_share_of_all_matchings_or_flips(seeds: int) -> None:
    """A cosine that falls equally in all seeds: K! of the (2K - 1)!! matchings have the largest sum, 2 of 2^K flips."""
    rng = np.random.default_rng(0)
    base = rng.normal(0.25, 0.001, (1, seeds))
    matchings = math.factorial(seeds) / math.prod(range(1, 2 * seeds, 2))
    assert matching_p(base, base - 0.5, rng)[0] == pytest.approx(matchings) == pytest.approx(least_matching_p(seeds))
    flips = sign_flip_p(np.full((1, seeds), -0.5), rng)[0]
    assert flips == pytest.approx(2 / 2**seeds) == pytest.approx(least_sign_flip_p(seeds))


@pytest.mark.parametrize("seeds", [16, 20])
def test_the_least_p_of_many_seeds_is_what_so_many_drawn_ones_allow(seeds: int) -> None:
    """The share of all matchings or flips is smaller, but an estimate from DRAWN ones never gets there."""
    rng = np.random.default_rng(0)
    base = rng.normal(0.25, 0.001, (3, seeds))
    share = math.factorial(seeds) / math.prod(range(1, 2 * seeds, 2))
    assert share < least_matching_p(seeds) == 1 / (DRAWN + 1)
    assert matching_p(base, base - 0.5, rng).min() == pytest.approx(least_matching_p(seeds))
    assert 2 / 2**seeds < least_sign_flip_p(seeds) == 1 / (DRAWN + 1)
    assert sign_flip_p(np.full((1, seeds), -0.5), rng)[0] == pytest.approx(least_sign_flip_p(seeds))


def test_the_least_p_of_one_seed_is_one() -> None:
    assert least_matching_p(1) == least_sign_flip_p(1) == 1


def test_the_least_p_of_lpips_is_one_order_of_all() -> None:
    known = stats.mannwhitneyu(np.arange(4) + 10.0, np.arange(3.0), alternative="greater", method="exact").pvalue
    assert least_rank_sum_p(4, 3) == pytest.approx(known)


def test_half_of_the_flips_stand_for_all() -> None:
    d = np.random.default_rng(4).normal(0.2, 1, (5, 6))
    d[4] = 0.0
    for row, p in enumerate(sign_flip_p(d, np.random.default_rng(0))):
        means = [abs(np.mean(d[row] * signs)) for signs in itertools.product((1, -1), repeat=6)]
        assert p == pytest.approx(np.mean(np.array(means) >= abs(d[row].mean()) - 1e-12))
