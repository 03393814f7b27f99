"""Distances between distributions over many draws: no bias from pairing, honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raymap.analysis.numerics.distances import (
    kid,
)
from tests.analysis.rows import draw, measure


def test_a_noise_shared_across_prompts_biases_the_aligned_statistic_and_not_the_tables() -> None:
    rng = np.random.default_rng(7)
    aligned, tables = [], []
    for _ in range(150):
        base, adapted, prompts, seeds = draw(rng, 6, 4, 8, rho=0.5, seed_effect=1)
        aligned.append(kid(base, adapted, aligned=True))
        tables.append(measure(base, adapted, prompts, seeds)["kid", "seed-matched"].value)
    assert stats.ttest_1samp(aligned, 0).statistic > 10
    assert abs(stats.ttest_1samp(tables, 0).statistic) < 3


def test_kid_estimates_the_closed_form_for_shifted_gaussians() -> None:
    rng, d, m = np.random.default_rng(8), 4, 1.5
    # z = x·y of two rows: its moments where both, one or none has a mean of squared length m.
    both = 1 + 3 * m / d + 3 * (d + 2 * m + m**2) / d**2 + (m**3 + 3 * m * (d + 2 * m) + 6 * m) / d**3
    one, none = 1 + 3 * (d + m) / d**2, 1 + 3 / d
    values = []
    for _ in range(200):
        base = rng.normal(size=(24, d))
        adapted = 0.6 * base + 0.8 * rng.normal(size=(24, d)) + np.sqrt(m / d)
        rows = measure(base, adapted, np.repeat(np.arange(6), 4), np.tile(np.arange(4), 6))
        values.append([rows["kid", design].value for design in ("seed-matched", "disjoint seeds")])
    assert (np.abs(stats.ttest_1samp(values, both + none - 2 * one).statistic) < 3).all()


@pytest.mark.parametrize("seeds", [4, 7])
def test_nulls_hold_no_shift_but_all_of_the_bias(seeds: int) -> None:
    def means(metric: str, shift: float) -> np.ndarray:
        rng = np.random.default_rng(18)
        rows = [measure(*draw(rng, 12, seeds, 8, 0.5, 1, shift))[metric, "seed-matched"] for _ in range(60)]
        return np.mean(np.array([(row.value, row.null) for row in rows], float), axis=0)

    value, null = means("fid", 0)
    assert null == pytest.approx(value, rel=0.05)
    assert means("fid", 1)[1] == pytest.approx(null, rel=0.1)
    value, null = means("kid", 2)
    assert abs(null) < 0.1 * value


def test_intervals_cover_the_truth_also_where_seeds_share_noise() -> None:
    rng = np.random.default_rng(12)
    found = [measure(*draw(rng, 10, 5, 8, seed_effect=0.5)) for _ in range(120)]
    for metric in ("fid", "kid", "cmmd"):
        rows = [row[metric, "seed-matched"] for row in found]
        truth = np.mean([row.value for row in rows]) if metric == "fid" else 0
        covered = [bool(row.low <= truth <= row.high) for row in rows]  # type: ignore[operator]
        assert np.mean(covered) >= 0.93
