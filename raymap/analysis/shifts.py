"""Did this adapter shift this prompt? Each cell of the map against what re-seeding the base does, with a p-value.

A threshold from single seed pairs is no floor for a mean over K seeds. Three tests take the estimator as it is:

* `sem`: were adapted images fresh draws of the base, the 2K cosines of a cell were exchangeable, and pairing each
  adapted image with its own base image nothing special. p is the share of random perfect matchings of the 2K values
  whose mean |difference| reaches E_sem: exact up to the number of matchings drawn. It asks for *more* than re-seeding.
* `per`: the K values of LPIPS against those of the prompt's base seed pairs, exact one-sided Mann-Whitney U.
* `signed`: were base and adapted image exchangeable within a pair, each difference could as well have the other sign:
  exact two-sided sign-flip test of the mean. It asks whether alignment changed *on average*, however little.

q-values are Benjamini & Hochberg's over all cells (controls left out), which holds for the positively dependent cells
of one prompt (Benjamini & Yekutieli 2001).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from raymap.analysis.maps import CONTROL

DRAWN = 1_999
FDR = 0.05
KEY = ("prompt_id", "adapter")
NAMES = ("sem", "per", "signed")


def shift_tests(scores: pl.DataFrame, noise: pl.DataFrame) -> pl.DataFrame:
    """Return a row a (prompt, adapter), controls left out: `p_sem`, `p_per`, `p_signed` and `q_…` of each.

    NaN rows are left out. A p-value is null where a cell has fewer than two seeds, or (`per`) its prompt no seed pair.
    """
    clean = scores.filter(
        pl.col("method") != CONTROL, *(pl.col(c).is_finite() for c in ("clip_base", "clip_adapted", "lpips"))
    ).sort(*KEY, "seed")
    cells = clean.group_by(KEY, maintain_order=True).agg("clip_base", "clip_adapted", "lpips")
    floor = noise.group_by("prompt_id").agg(pl.col("e_per").cast(pl.Float64).alias("floor"))
    cells = cells.join(floor, on="prompt_id", how="left", maintain_order="left")
    rng = np.random.default_rng(0)
    found = {name: np.full(cells.height, np.nan) for name in NAMES}
    sizes = cells.select(pl.col("lpips").list.len(), pl.col("floor").list.len().fill_null(0)).to_numpy()
    for k, pairs in sorted({(int(k), int(pairs)) for k, pairs in sizes if k > 1}):
        at = np.flatnonzero((sizes == (k, pairs)).all(axis=1))
        group = cells[at]
        base, adapted = (np.array(group[name].to_list(), np.float64) for name in ("clip_base", "clip_adapted"))
        found["sem"][at] = matching_p(base, adapted, rng)
        found["signed"][at] = sign_flip_p(adapted - base, rng)
        if pairs:
            drawn, reseeded = (np.array(group[name].to_list(), np.float64) for name in ("lpips", "floor"))
            test = stats.mannwhitneyu(drawn, reseeded, alternative="greater", method="exact", axis=1)
            found["per"][at] = test.pvalue
    columns = {f"p_{name}": values for name, values in found.items()}
    columns |= {f"q_{name}": _adjusted(values) for name, values in found.items()}
    return cells.select(KEY).with_columns(pl.Series(name, values).fill_nan(None) for name, values in columns.items())


def shift_counts(tests: pl.DataFrame, study: pl.DataFrame) -> list[dict[str, Any]]:
    """Return, for each adapter, how many non-target prompts it shifts at a false-discovery rate of 5 %.

    Args:
        tests: what `shift_tests` returned.
        study: the map without controls.
    """
    joined = study.filter(~pl.col("target")).select(KEY).join(tests, on=KEY, how="inner")
    counted = joined.group_by("adapter", maintain_order=True).agg(
        *(pl.col(f"q_{name}").is_not_null().sum().alias(f"tested_{name}") for name in NAMES),
        *((pl.col(f"q_{name}") <= FDR).sum().alias(f"shifted_{name}") for name in NAMES),
    )
    return [row | {"method": f"Benjamini-Hochberg at {FDR:.0%} over all cells"} for row in counted.to_dicts()]


def _adjusted(p: np.ndarray) -> np.ndarray:
    q, known = np.full(len(p), np.nan), ~np.isnan(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q


def matching_p(base: np.ndarray, adapted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return, for each row, the share of perfect matchings of its 2K values whose mean |difference| is as large.

    Args:
        base, adapted: float (cells, K), K ≥ 2. All matchings are counted up to K = 5 (945), else DRAWN are drawn and
            the observed one is counted with them (Phipson & Smyth 2010).
    """
    k = base.shape[1]
    values = np.concatenate([base, adapted], axis=1)
    observed = np.abs(adapted - base).mean(axis=1)
    if k <= 5:
        pairs = np.array(list(_matchings(tuple(range(2 * k)))))
        extra = 0
    else:
        pairs = np.array([rng.permutation(2 * k).reshape(k, 2) for _ in range(DRAWN)])
        extra = 1
    reached = np.full(len(values), float(extra))
    for matching in pairs:
        means = np.abs(values[:, matching[:, 0]] - values[:, matching[:, 1]]).mean(axis=1)
        reached += means >= observed - 1e-12
    return reached / (len(pairs) + extra)


def _matchings(items: tuple[int, ...]) -> list[tuple[tuple[int, int], ...]]:
    if not items:
        return [()]
    first, rest = items[0], items[1:]
    return [
        ((first, other), *others) for k, other in enumerate(rest) for others in _matchings(rest[:k] + rest[k + 1 :])
    ]


def sign_flip_p(differences: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the two-sided sign-flip p-value of each row's mean; all 2^K flips up to K = 11, else DRAWN drawn ones.

    Args:
        differences: float (cells, K).
    """
    k = differences.shape[1]
    if k <= 11:
        signs, extra = np.array(list(itertools.product((1.0, -1.0), repeat=k))), 0
    else:
        signs, extra = rng.choice((1.0, -1.0), (DRAWN, k)), 1
    observed = np.abs(differences.sum(axis=1))
    reached = (np.abs(differences @ signs.T) >= observed[:, None] - 1e-12).sum(axis=1) + extra
    return np.asarray(reached / (len(signs) + extra))
