"""Moderated variances: a cell of three seeds borrows strength from all the other cells of its adapter.

A variance from K seeds has K − 1 degrees of freedom, which is too few to test a single cell. Smyth (2004, Statistical
Applications in Genetics and Molecular Biology 3, article 3) takes the true variances of all cells as draws from a
scaled inverse χ² distribution, whose degrees of freedom d0 and scale s0² are estimated from the cells' own variances:

    s²_moderated = (d0 · s0² + df · s²) / (d0 + df),   with d0 + df degrees of freedom.

A t statistic with this variance has Student's t distribution with d0 + df degrees of freedom, if the values of a cell
are normal and the variances follow that distribution. docs/statistics.md says what is left of
its promise where they do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

MOST = 1e6
"""Prior degrees of freedom from which on all cells count as having one variance."""


@dataclass(frozen=True)
class Prior:
    """What all cells have in common: `df` (d0, from 0 to infinity) and `variance` (s0²). df 0 shares nothing."""

    df: float
    variance: float


NOTHING_SHARED = Prior(0.0, 0.0)


@dataclass(frozen=True)
class Moderated:
    """Moderated variances (n,) and their degrees of freedom (n,), which may be infinite; NaN and 0 where unknown."""

    variances: np.ndarray
    df: np.ndarray


def fit_prior(variances: np.ndarray, df: np.ndarray) -> Prior:
    """Estimate the prior by the mean and the variance of log s² (Smyth 2004, section 6.2).

    Args:
        variances: float (n,). Those that are 0 or not finite are left out, since their logarithm says nothing.
        df: float (n,), their degrees of freedom, above 0 where a variance is used.

    Returns:
        NOTHING_SHARED with fewer than two usable variances.
    """
    with np.errstate(invalid="ignore"):
        used = np.isfinite(variances) & (variances > 0) & (df > 0)
    if used.sum() < 2:
        return NOTHING_SHARED
    half = df[used] / 2
    e = np.log(variances[used]) - special.digamma(half) + np.log(half)
    beyond = e.var(ddof=1) - special.polygamma(1, half).mean()
    d0 = MOST if beyond <= 0 else 2 * inverse_trigamma(beyond)
    if d0 >= MOST:
        return Prior(np.inf, float(np.exp(e.mean())))
    return Prior(float(d0), float(np.exp(e.mean() + special.digamma(d0 / 2) - np.log(d0 / 2))))


def inverse_trigamma(value: float) -> float:
    """Return the y > 0 whose trigamma is `value` > 0, within 1e-9 to 1e9."""

    def off(log_y: float) -> float:
        return float(np.log(special.polygamma(1, np.exp(log_y)) / value))

    ends = np.log(1e-9), np.log(1e9)
    if off(ends[0]) <= 0 or off(ends[1]) >= 0:
        return float(np.exp(ends[0] if off(ends[0]) <= 0 else ends[1]))
    return float(np.exp(optimize.brentq(off, *ends, xtol=1e-12)))


def moderate(variances: np.ndarray, df: np.ndarray, prior: Prior | None = None) -> Moderated:
    """Return moderated variances; cells without degrees of freedom have the prior's alone.

    Args:
        variances, df: float (n,); a variance with df 0 is ignored.
        prior: None fits it to these variances.
    """
    shared = fit_prior(variances, df) if prior is None else prior
    known = np.where(df > 0, variances, 0.0)
    if np.isinf(shared.df):
        return Moderated(np.full(len(df), shared.variance), np.full(len(df), np.inf))
    total = shared.df + df
    with np.errstate(invalid="ignore", divide="ignore"):
        mixed = (shared.df * shared.variance + df * known) / total
    return Moderated(np.where(total > 0, mixed, np.nan), total)


def t_p(distance: np.ndarray, variance: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return one-sided p-values (n,) for a `distance` above 0 whose squared standard error is `variance`.

    Where the error is 0, p is 0 for a distance above 0, and 1 otherwise. It is NaN where df is 0 or a value is NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = stats.t.sf(distance / np.sqrt(variance), df)
    p = np.where(variance == 0, np.where(distance > 0, 0.0, 1.0), p)
    return np.where((df > 0) & np.isfinite(distance) & np.isfinite(variance), p, np.nan)


def joined(first: np.ndarray, df_first: np.ndarray, second: np.ndarray, df_second: np.ndarray) -> np.ndarray:
    """Return the degrees of freedom of the sum of two squared standard errors (Welch and Satterthwaite)."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        df = (first + second) ** 2 / (first**2 / df_first + second**2 / df_second)
    none = (df_first <= 0) | (df_second <= 0)
    return np.where(none, 0.0, np.where(np.isnan(df), np.inf, df))
