"""Measures of a change that are 0 on average where nothing changed, from pairs of different seeds only.

The mean of |adapted − base| is not 0 where an adapter merely draws another image of the same meaning. These two are.
"""

from __future__ import annotations

import numpy as np


def systematic_square(differences: np.ndarray) -> np.ndarray:
    """Return the mean of d_k · d_l over k ≠ l of each row of `differences` (n, K), K ≥ 2: (n,).

    Its expectation is the square of the mean difference, so it may be negative by chance.
    """
    k = differences.shape[1]
    return np.asarray((differences.sum(axis=1) ** 2 - (differences**2).sum(axis=1)) / (k * (k - 1)))


def signed_root(square: float) -> float:
    """Return the root of a square's estimate, with the sign of the estimate."""
    return float(np.sign(square) * np.sqrt(abs(square)))


def energy_distance(base: np.ndarray, adapted: np.ndarray) -> np.ndarray:
    """Return the energy distance of each row's two distributions, 2·E|a − b| − E|a − a'| − E|b − b'|: (n,).

    Every mean is over pairs of different seeds, k ≠ l, since base and adapted images of one seed are dependent. The
    expectation is 0 if and only if both distributions are equal (Székely and Rizzo 2013, Journal of Statistical
    Planning and Inference 143, 1249-1272), and it needs no noise floor. A value may be negative by chance.

    Args:
        base, adapted: float (n, K), K ≥ 2.
    """
    k = base.shape[1]

    def mean(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        distances = np.abs(x[:, :, None] - y[:, None, :])
        own = np.einsum("nkk->n", distances)
        return np.asarray((distances.sum(axis=(1, 2)) - own) / (k * (k - 1)))

    return 2 * mean(adapted, base) - mean(adapted, adapted) - mean(base, base)
