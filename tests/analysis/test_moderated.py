"""Moderated variances, discoveries and debiased measures against scipy, direct formulas and simulation."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from scipy import special, stats

from raymap.analysis.numerics.debiased import energy_distance, signed_root, systematic_square
from raymap.analysis.numerics.discoveries import adjusted, all_but, at_least
from raymap.analysis.numerics.moderated import (
    NOTHING_SHARED,
    Prior,
    fit_prior,
    inverse_trigamma,
    joined,
    moderate,
    t_p,
)


@pytest.mark.parametrize("value", [1e-6, 0.01, 0.5, 1.0, 30.0, 1e6])
def test_the_inverse_trigamma_is_the_inverse(value: float) -> None:
    assert special.polygamma(1, inverse_trigamma(value)) == pytest.approx(value, rel=1e-8)


def variances(rng: np.random.Generator, d0: float, scale: float, df: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw true variances from a scaled inverse χ² distribution, and a sample variance of each."""
    true = scale * d0 / rng.chisquare(d0, n)
    return true, true * rng.chisquare(df, n) / df


@pytest.mark.parametrize(("d0", "df"), [(2.2, 2), (6.0, 3), (20.0, 4)])
def test_a_prior_that_was_planted_is_found(d0: float, df: int) -> None:
    _, found = variances(np.random.default_rng(1), d0, 0.0148**2, df, 100_000)
    prior = fit_prior(found, np.full(100_000, float(df)))
    assert prior.df == pytest.approx(d0, rel=0.05)
    assert prior.variance == pytest.approx(0.0148**2, rel=0.03)


def test_equal_variances_share_everything_and_one_variance_nothing() -> None:
    same = np.random.default_rng(0).chisquare(3, 5_000) / 3
    prior = fit_prior(same, np.full(5_000, 3.0))
    assert prior.df > 100
    assert prior.variance == pytest.approx(1, rel=0.05)
    assert fit_prior(np.array([0.1, 0.0, np.nan]), np.array([3.0, 3, 3])) == NOTHING_SHARED
    assert moderate(np.array([0.3]), np.array([3.0])).variances.tolist() == [0.3]


def test_a_moderated_variance_is_the_formula_s() -> None:
    held = moderate(np.array([0.5, np.nan]), np.array([2.0, 0.0]), Prior(4.0, 0.1))
    assert held.variances.tolist() == pytest.approx([(4 * 0.1 + 2 * 0.5) / 6, 0.1])
    assert held.df.tolist() == [6, 4]
    assert np.isnan(moderate(np.array([np.nan]), np.array([0.0])).variances).all()


def test_p_values_of_a_moderated_t_are_uniform_under_the_null() -> None:
    rng = np.random.default_rng(3)
    true, _ = variances(rng, 2.2, 1.0, 2, 40_000)
    values = rng.normal(0, np.sqrt(true)[:, None], (40_000, 3))
    held = moderate(values.var(axis=1, ddof=1), np.full(40_000, 2.0))
    p = t_p(values.mean(axis=1), held.variances / 3, held.df)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_without_a_prior_it_is_student_s_and_welch_s_t() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(0.3, 1, 5), rng.normal(0, 3, 4)
    p = t_p(np.array([x.mean()]), np.array([x.var(ddof=1) / 5]), np.array([4.0]))
    assert p[0] == pytest.approx(stats.ttest_1samp(x, 0, alternative="greater").pvalue)
    a, b = np.array([x.var(ddof=1) / 5]), np.array([y.var(ddof=1) / 4])
    p = t_p(np.array([x.mean() - y.mean()]), a + b, joined(a, np.array([4.0]), b, np.array([3.0])))
    assert p[0] == pytest.approx(stats.ttest_ind(x, y, equal_var=False, alternative="greater").pvalue)
    exact = t_p(np.array([0.1, 0.0, np.nan]), np.zeros(3), np.ones(3))
    assert exact[:2].tolist() == [0, 1]
    assert np.isnan(exact[2])


def test_the_bound_on_false_hypotheses_is_that_of_all_intersections() -> None:
    """Closed testing by brute force: every intersection that Simes' test does not reject may be true."""
    rng = np.random.default_rng(5)

    def simes(p: tuple[float, ...]) -> float:
        ordered = np.sort(p)
        return float((ordered * len(p) / np.arange(1, len(p) + 1)).min())

    for _ in range(200):
        n = int(rng.integers(1, 8))
        p = rng.random(n) ** rng.choice([1, 3, 6])
        subsets = chain.from_iterable(combinations(range(n), size) for size in range(1, n + 1))
        may_be_true = [len(s) for s in subsets if simes(tuple(p[list(s)])) > 0.05]
        assert at_least(p, 0.05) == n - max(may_be_true, default=0)
        assert (at_least(p, 0.05) > 0) == (stats.false_discovery_control(p).min() <= 0.05)


def test_all_claims_but_a_few() -> None:
    p = np.array([0.01, 0.2, 0.03, np.nan])
    assert [all_but(p, m) for m in range(5)] == pytest.approx([1.0, 0.4, 0.09, 0.04, 0.0])
    assert all_but(np.empty(0), 0) == 0


def test_each_family_is_adjusted_on_its_own() -> None:
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.5])
    q = adjusted(p, np.array([0, 1, 0, 0, 1]))
    assert q[[0, 2]].tolist() == pytest.approx(stats.false_discovery_control([0.01, 0.03]).tolist())
    assert q[[1, 4]].tolist() == pytest.approx(stats.false_discovery_control([0.04, 0.5]).tolist())
    assert np.isnan(q[3])


def test_debiased_measures_are_means_over_pairs_of_different_seeds() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 3, 4))
    pairs = [(k, j) for k in range(4) for j in range(4) if k != j]
    d = b - a
    for row in range(3):
        assert systematic_square(d)[row] == pytest.approx(np.mean([d[row, k] * d[row, j] for k, j in pairs]))
        between, within_a, within_b = (
            np.mean([abs(x[row, k] - y[row, j]) for k, j in pairs]) for x, y in ((a, b), (a, a), (b, b))
        )
        assert energy_distance(a, b)[row] == pytest.approx(2 * between - within_a - within_b)
    assert [signed_root(0.04), signed_root(-0.04)] == pytest.approx([0.2, -0.2])


def test_debiased_measures_are_zero_on_average_without_a_change_and_find_one() -> None:
    rng = np.random.default_rng(7)
    common = rng.normal(size=(20_000, 4))
    base, fresh = (np.sqrt(0.5) * (common + rng.normal(size=common.shape)) for _ in range(2))
    for measure, error in ((systematic_square(fresh - base), 0.01), (energy_distance(base, fresh), 0.01)):
        assert measure.mean() == pytest.approx(0, abs=error)
    assert systematic_square(fresh - base - 1).mean() == pytest.approx(1, abs=0.03)
    planted = stats.energy_distance(rng.normal(size=20_000), rng.normal(1, 1, 20_000)) ** 2
    assert energy_distance(base, fresh + 1).mean() == pytest.approx(planted, abs=0.03)
