"""Is a prompt's change under an adapter larger than a margin, smaller than it, or can the seeds not tell?

A prompt's margin is what another seed does to the base's images of this prompt:

* the *score* (CLIP cosine) may move by up to one standard deviation of the base's own scores over seeds;
* the *image* may be as far from the base's (LPIPS) as images of different seeds are on average, plus two standard
  deviations of single pairs of seeds around that mean.

All standard deviations are moderated (`raymap.analysis.numerics.moderated`): those of differences and of LPIPS over the
prompts of one adapter, those of the base over all prompts. With K seeds, mean difference d, squared standard error
v = s_d²/K and Student's t with the moderated degrees of freedom, each cell has these p-values:

* `p_changed`: that the mean score changed at all (two-sided);
* `p_score`: that it moved beyond the margin δ, P(T ≥ (|d| − δ)/√v) + P(T ≥ (|d| + δ)/√v), the test of an interval;
* `p_score_within`: that it is within the margin, the larger p of two one-sided tests (Schuirmann 1987), and
  `p_not_fallen`: that it did not fall beyond it, one of the two;
* `p_image` and `p_image_within`: the same of LPIPS, one-sided, by Welch's t against the mean of its seed pairs.

`p_shifted` is twice the smaller of `p_score` and `p_image`, `p_unchanged` the larger of the two `…_within`. A claim
is about the margin that is printed beside it: the score's margin and the spread of seed pairs are taken as given.
Benjamini-Hochberg's q-values are within one adapter, over its non-target prompts and, separately, over its target
prompts.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from raymap.analysis.map import finite, is_target
from raymap.analysis.numerics.debiased import energy_distance, systematic_square
from raymap.analysis.numerics.discoveries import adjusted
from raymap.analysis.numerics.moderated import joined, moderate, t_p
from raymap.analysis.read import KEY, MEASURED
from raymap.store.schema import CHANGES
from raymap.study.methods.method import CONTROL

REACH = 2
"""How many standard deviations of seed pairs above their mean an image may be."""
SHARED = 0.21
"""Correlation of the LPIPS of two pairs of seeds that have one seed in common, as measured on the committed runs."""
LADDER = (3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40)
"""Numbers of seeds that are tried when it is asked how many would settle a prompt."""
LEVEL = 0.05


def change_tests(scores: pl.DataFrame, noise: pl.DataFrame) -> pl.DataFrame:
    """Return one row per prompt and adapter that has a complete score, controls left out (schema CHANGES).

    p-values are null if a cell has a single seed. Those of the image are null, too, if the spread of the prompt's seed
    pairs is unknown (which takes three seeds), and so are `p_shifted` and `p_unchanged` where nothing is known. A cell
    whose images are the base's own by proof has `p_unchanged` 0 and `p_shifted` 1.

    Args:
        scores: as `stream_scores` returns them, sorted by prompt and adapter.
        noise: schema NOISE; pairs that are not finite are left out.
    """
    clean = finite(scores.filter(pl.col("method") != CONTROL))
    cells = _cells(clean).join(_margins(clean, noise), on="prompt_id", how="left", maintain_order="left")
    columns: dict[str, np.ndarray] = {}
    columns |= _debiased(clean, cells["seeds"].to_numpy())
    columns |= _tested(cells)
    family = cells.select(pl.struct("adapter", "target").rank("dense")).to_series().to_numpy()
    columns |= {f"q_{name}": adjusted(columns[f"p_{name}"], family) for name in ("changed", "shifted", "unchanged")}
    columns["seeds_to_settle"] = _seeds_to_settle(cells, columns, np.bincount(family)[family])
    for name, values in columns.items():
        cells = cells.with_columns(pl.Series(name, values, dtype=pl.Float64).fill_nan(None))
    return cells.with_columns(pl.col("seeds_to_settle").cast(pl.Int64)).select(CHANGES.names)


def _cells(clean: pl.DataFrame) -> pl.DataFrame:
    difference = pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base").cast(pl.Float64)
    lpips = pl.col("lpips").cast(pl.Float64)
    cells = clean.group_by(KEY, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("seeds"),
        drawn=pl.col("drawn").any(),
        target=is_target().first(),
        signed=difference.mean(),
        variance=difference.var(),
        lpips=lpips.mean(),
        lpips_variance=lpips.var(),
    )
    return cells.with_columns(pl.col(*KEY).cast(pl.String))


def _margins(clean: pl.DataFrame, noise: pl.DataFrame) -> pl.DataFrame:
    """Return for each prompt: `margin` of the score; of its seed pairs `pairs_mean`, `pairs_sd`, `pairs_df`, `pairs_n`.

    `pairs_n` is the number of independent pairs that would give a mean as precise: pairs that share a seed count less.
    """
    base = clean.select("prompt_id", "seed", pl.col("clip_base").cast(pl.Float64)).unique(["prompt_id", "seed"])
    spread = base.group_by("prompt_id").agg(df=pl.len() - 1, variance=pl.col("clip_base").var()).sort("prompt_id")
    score = _moderated(spread, "variance", spread["df"].to_numpy().astype(float))
    margins = spread.select(
        pl.col("prompt_id").cast(pl.String),
        margin=pl.Series(np.sqrt(score[0])).fill_nan(None),
    )
    pairs = noise.select("prompt_id", "seed_a", "seed_b", pl.col("e_per").cast(pl.Float64))
    pairs = pairs.filter(pl.col("e_per").is_finite())
    floors = pairs.group_by("prompt_id").agg(
        pl.len().alias("n"),
        pairs_mean=pl.col("e_per").mean(),
        variance=pl.col("e_per").var(),
        # Of n (n − 1) ordered couples of pairs, those that share a seed: a seed in m pairs is shared by m (m − 1).
        shared=pl.col("seed_a").append(pl.col("seed_b")).value_counts().struct.field("count").pow(2).sum()
        - 2 * pl.len(),
    )
    floors = floors.sort("prompt_id").with_columns(pairs_n=pl.col("n") / (1 + SHARED * pl.col("shared") / pl.col("n")))
    variances, df = _moderated(floors, "variance", floors["n"].to_numpy().astype(float) - 1)
    floors = floors.select(
        pl.col("prompt_id").cast(pl.String), "pairs_mean", "pairs_n",
        pairs_sd=pl.Series(np.sqrt(variances)).fill_nan(None), pairs_df=pl.Series(df),
    )  # fmt: skip
    return margins.join(floors, on="prompt_id", how="left").with_columns(
        image_margin=pl.col("pairs_mean") + REACH * pl.col("pairs_sd")
    )


def _moderated(frame: pl.DataFrame, column: str, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    held = moderate(_floats(frame, column), df)
    return held.variances, held.df


def _floats(frame: pl.DataFrame, column: str) -> np.ndarray:
    return np.asarray(frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy())


def _degrees(frame: pl.DataFrame, column: str) -> np.ndarray:
    return np.nan_to_num(_floats(frame, column), nan=0.0, posinf=np.inf)


def _debiased(clean: pl.DataFrame, seeds: np.ndarray) -> dict[str, np.ndarray]:
    """Return `systematic` (the mean of d_k · d_l over k ≠ l) and `energy` of every cell, NaN with a single seed."""
    base, adapted = (clean[name].cast(pl.Float64).to_numpy() for name in MEASURED[:2])
    starts = np.cumsum(seeds) - seeds
    found = {name: np.full(len(seeds), np.nan) for name in ("systematic", "energy")}
    for k in np.unique(seeds[seeds > 1]):
        chosen = np.flatnonzero(seeds == k)
        at = starts[chosen, None] + np.arange(k)
        found["systematic"][chosen] = systematic_square(adapted[at] - base[at])
        found["energy"][chosen] = energy_distance(base[at], adapted[at])
    return found


def _tested(cells: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return moderated standard deviations, degrees of freedom and p-values of every cell."""
    df = cells["seeds"].to_numpy().astype(float) - 1
    drawn = cells["drawn"].to_numpy()
    number = cells.select(pl.col("adapter").rank("dense")).to_series().to_numpy()
    held = {name: np.full(cells.height, np.nan) for name in ("score_variance", "image_variance")}
    dfs = {name: np.zeros(cells.height) for name in held}
    for name, column in (("score_variance", "variance"), ("image_variance", "lpips_variance")):
        variances = _floats(cells, column)
        for one in np.unique(number):
            own = (number == one) & drawn
            moderated = moderate(variances[own], df[own])
            held[name][own], dfs[name][own] = moderated.variances, np.where(df[own] > 0, moderated.df, 0)
    columns = {
        "signed_sd": np.sqrt(held["score_variance"]), "signed_df": dfs["score_variance"],
        "lpips_sd": np.sqrt(held["image_variance"]), "lpips_df": dfs["image_variance"],
    }  # fmt: skip
    columns |= p_values(cells, columns, cells["seeds"].to_numpy())
    unmoved = ((name, 0.0) for name in ("unchanged", "score_within", "image_within", "not_fallen"))
    for name, value in (("changed", 1.0), ("shifted", 1.0), ("score", 1.0), ("image", 1.0), *unmoved):
        columns[f"p_{name}"][~drawn] = value
    return columns


def p_values(cells: pl.DataFrame, moderated: dict[str, np.ndarray], seeds: np.ndarray) -> dict[str, np.ndarray]:
    """Return the p-values of cells whose means and spreads are as they were found, had they so many `seeds` (n,)."""
    signed, margin = _floats(cells, "signed"), _floats(cells, "margin")
    error, df = moderated["signed_sd"] ** 2 / seeds, moderated["signed_df"]
    size = np.abs(signed)
    score = t_p(size - margin, error, df) + t_p(size + margin, error, df)
    within = t_p(margin - size, error, df)
    of_image = moderated["lpips_sd"] ** 2 / seeds
    of_floor = _floats(cells, "pairs_sd") ** 2 / _floats(cells, "pairs_n")
    image_df = joined(of_image, moderated["lpips_df"], of_floor, _degrees(cells, "pairs_df"))
    beyond = _floats(cells, "lpips") - _floats(cells, "image_margin")
    image = t_p(beyond, of_image + of_floor, image_df)
    image_within = t_p(-beyond, of_image + of_floor, image_df)
    score = np.minimum(score, 1.0)
    return {
        "p_changed": np.minimum(2 * t_p(size, error, df), 1.0),
        "p_score": score, "p_score_within": within,
        "p_not_fallen": t_p(signed + margin, error, df),
        "p_image": image, "p_image_within": image_within,
        "p_shifted": np.minimum(2 * np.fmin(score, image), 1.0),
        "p_unchanged": np.maximum(within, image_within),
    }  # fmt: skip


def _seeds_to_settle(cells: pl.DataFrame, columns: dict[str, np.ndarray], family: np.ndarray) -> np.ndarray:
    """Return the least number of seeds of LADDER, beyond the cell's own, that would settle an undecided cell.

    It takes the means and spreads for the true ones; NaN where a cell is decided or 40 seeds would not settle it. A
    shift has to pass Bonferroni's level over the family, so the number errs upwards.
    """
    seeds = cells["seeds"].to_numpy()
    found = np.full(cells.height, np.nan)
    decided = (columns["q_shifted"] <= LEVEL) | (columns["q_unchanged"] <= LEVEL)
    for k in LADDER:
        more = {name: columns[name] + (k - seeds) * name.endswith("_df") for name in
                ("signed_sd", "signed_df", "lpips_sd", "lpips_df")}  # fmt: skip
        p = p_values(cells, more, np.full(cells.height, k))
        settled = (p["p_shifted"] * family <= LEVEL) | (p["p_unchanged"] <= LEVEL)
        found[settled & ~decided & (seeds < k) & np.isnan(found)] = k
    return found
