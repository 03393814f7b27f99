"""Base and adapted rows whose prompts and seeds have effects, and what is measured of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from raymap.analysis.numerics.distances import (
    Distance,
    distances_by_category,
)

Draw = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def draw(
    rng: np.random.Generator, p: int, k: int, d: int, rho: float = 0.7, seed_effect: float = 0.0, shift: float = 0.0
) -> Draw:
    """Return base and adapted rows, prompts and seeds: prompts and seeds have effects, pairs correlate by rho."""
    mix = np.sqrt(1 - rho**2)
    prompt, rows, others = rng.normal(size=(p, 1, d)), rng.normal(size=(p, k, d)), rng.normal(size=(p, k, d))
    noise, fresh = seed_effect * rng.normal(size=(2, 1, k, d))
    base = prompt + noise + rows
    adapted = prompt + rho * (noise + rows) + mix * (fresh + others)
    base[..., 0] += 1
    adapted[..., 0] += 1 + shift
    return base.reshape(-1, d), adapted.reshape(-1, d), np.repeat(np.arange(p), k), np.tile(np.arange(k), p)


def measure(base: np.ndarray, adapted: np.ndarray, prompts: np.ndarray, seeds: np.ndarray) -> dict[Any, Distance]:
    """Return the estimates of a single adapter and category by (metric, design)."""
    same = np.full(len(base), "x")
    found = distances_by_category(base, adapted, prompts, seeds, same, same, "clip:embedded")
    return {(row.metric, row.design): row for row in found}
