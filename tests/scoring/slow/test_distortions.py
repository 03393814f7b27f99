"""LPIPS grows with graded distortions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raymap.embedded.train.data import motifs
from raymap.embedded.train.distortions import DISTORTIONS, graded
from raymap.scoring.perceptual import LpipsScorer

HELD_OUT = motifs(None, 40, seed=5, held_out=True)


@pytest.fixture(scope="module")
def renders() -> np.ndarray:
    rng = np.random.default_rng(11)
    return np.stack([p.render(rng) for p in HELD_OUT])


@pytest.mark.parametrize("name", DISTORTIONS)
def test_lpips_grows_with_graded_distortions_of_held_out_images(renders: np.ndarray, name: str) -> None:
    levels = graded(renders)[name]
    scorer = LpipsScorer("embedded")
    by_level = np.stack([scorer.distances(renders, level) for level in levels])
    assert np.all(np.diff(by_level.mean(1)) > 0)
    ranks = [stats.spearmanr(range(len(levels)), by_level[:, k]).statistic for k in range(len(renders))]
    assert np.nanmean(ranks) > 0.8  # not 1: a repeating pattern, shifted by its period, is itself again
