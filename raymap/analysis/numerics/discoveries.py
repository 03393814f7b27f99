"""Many tests of one family: a false-discovery rate for a list, and a lower bound on how many claims are true."""

from __future__ import annotations

import numpy as np
from scipy import stats


def adjusted(p: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Return Benjamini and Hochberg's q-values (n,), each within its family; NaN where p is NaN.

    Args:
        p: float (n,).
        family: int (n,), the number of each test's family.
    """
    q, known = np.full(len(p), np.nan), ~np.isnan(p)
    for one in np.unique(family[known]):
        of = known & (family == one)
        q[of] = stats.false_discovery_control(p[of])
    return q


def at_least(p: np.ndarray, alpha: float) -> int:
    """Return a number such that, with confidence 1 − alpha, at least so many of the null hypotheses are false.

    It comes from the closed testing procedure of Simes' tests (Hommel 1988, Biometrika 75, 383-386; Goeman, Meijer,
    Krebs and Solari 2019, Biometrika 106, 841-856): at most h hypotheses are true, where h is the largest i for which
    Simes' test does not reject the i largest p-values together. It holds under the positive dependence under which
    Simes' test does, and it is at least 1 whenever Benjamini and Hochberg's method finds anything at level alpha.

    Args:
        p: float (n,); NaN counts as a hypothesis that cannot be rejected.
    """
    ordered = np.sort(np.nan_to_num(p, nan=1.0))
    n = len(ordered)
    for i in range(n, 0, -1):
        if (ordered[n - i :] * i > alpha * np.arange(1, i + 1)).all():
            return n - i
    return n


def all_but(p: np.ndarray, exceptions: int) -> float:
    """Return a p-value for the hypothesis that more than `exceptions` of these claims are false.

    `p` (n,) are the p-values of the claims' opposites. A small result shows that all claims but at most so many are
    true (the partial conjunction of Benjamini and Heller 2008, Biometrics 64, 1215-1222, by Bonferroni's method); with
    no exceptions it is the largest p-value. NaN counts as 1.
    """
    ordered = np.sort(np.nan_to_num(p, nan=1.0))
    if exceptions >= len(ordered):
        return 0.0
    return float(min(1.0, (exceptions + 1) * ordered[len(ordered) - exceptions - 1]))
