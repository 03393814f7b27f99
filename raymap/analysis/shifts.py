"""Did this adapter shift this prompt? A test of each cell of the map against what re-seeding the base does.

A threshold from single seed pairs is no floor for a mean over K seeds. Three tests fit the estimator:

* `sem`: if adapted images were fresh draws of the base, the 2K cosines of a cell would be exchangeable, and pairing
  each adapted image with its own base image would be nothing special. p is the share of perfect matchings of the 2K
  values whose mean |difference| reaches E_sem (raymap.analysis.numerics.exchange). It asks for *more* than re-seeding.
* `per`: an exact one-sided Mann-Whitney U test of the K values of LPIPS against those of the prompt's base seed pairs.
* `signed`: if base and adapted image were exchangeable within a pair, each difference could as well have the other
  sign. An exact two-sided sign-flip test of the mean asks whether alignment changed *on average*, however little.

q-values are Benjamini & Hochberg's within one adapter, over its non-target prompts and, separately, over its target
prompts. What is counted is thus what was adjusted, and strong shifts of another adapter do not lower the bar. An
adapter that shifts no prompt is then named in at most 5 % of runs, even if its cells are positively dependent
(Benjamini & Yekutieli 2001). The matched thresholds of raymap.analysis.floor are reported beside the q-values.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import polars as pl

from raymap.analysis.floor import Pairs, pairs_of
from raymap.analysis.map import finite, is_target
from raymap.analysis.numerics.discoveries import adjusted
from raymap.analysis.numerics.exchange import matching_p, rank_sum_p, sign_flip_p
from raymap.analysis.read import KEY, MEASURED
from raymap.analysis.statistics import ShiftCounts
from raymap.study.methods.method import CONTROL

FDR = 0.05
"""The false-discovery rate at which a cell counts as shifted."""
TESTS = ("sem", "per", "signed")
"""The tests of a cell: `p_…` and `q_…` of each are columns of shifts.arrow."""
UNTESTED = "sem and signed need cells of two seeds, per also seed pairs of the prompt"


def shift_tests(scores: pl.DataFrame, noise: pl.DataFrame) -> pl.DataFrame:
    """Return one row per prompt and adapter that has a complete score, controls left out (schema SHIFTS).

    A p-value is null if a cell has fewer than two seeds or, for `per`, if its prompt has no seed pair. A matched
    threshold is null if the prompt has no seed pair or no prompt has two.

    Args:
        scores: as `stream_scores` returns them, sorted by prompt and adapter.
        noise: schema NOISE; pairs that are not finite are left out.
    """
    clean = finite(scores.filter(pl.col("method") != CONTROL))
    cells = clean.group_by(KEY, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("seeds"),
        e_sem=(pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base").cast(pl.Float64)).abs().mean(),
        e_per=pl.col("lpips").cast(pl.Float64).mean(),
        target=is_target().first(),
    )
    cells = cells.with_columns(pl.col(*KEY).cast(pl.String))
    seeds = cells["seeds"].to_numpy()
    starts = np.cumsum(seeds) - seeds
    floor = pairs_of(noise, "e_per")
    at, pairs = _numbers(cells, floor), np.zeros(cells.height, np.int64)
    pairs[at >= 0] = floor.counts[at[at >= 0]]
    values = [clean[name].cast(pl.Float64).to_numpy() for name in MEASURED]
    rng = np.random.default_rng(0)
    found = {name: np.full(cells.height, np.nan) for name in TESTS}
    for k, n in np.unique(np.stack([seeds, pairs], axis=1)[seeds > 1], axis=0):
        chosen = np.flatnonzero((seeds == k) & (pairs == n))
        base, adapted, lpips = (column[starts[chosen, None] + np.arange(k)] for column in values)
        found["sem"][chosen] = matching_p(base, adapted, rng)
        found["signed"][chosen] = sign_flip_p(adapted - base, rng)
        if n:
            reseeded = floor.values[floor.starts[at[chosen], None] + np.arange(n)]
            found["per"][chosen] = rank_sum_p(lpips, reseeded)
    columns = {f"p_{name}": p for name, p in found.items()}
    family = cells.select(pl.struct("adapter", "target").rank("dense")).to_series().to_numpy()
    columns |= {f"q_{name}": adjusted(p, family) for name, p in found.items()}
    for name in ("sem", "per"):
        held = pairs_of(noise, f"e_{name}")
        columns[f"matched_tau_{name}"] = held.matched(_numbers(cells, held), seeds)
    for name, values_of in columns.items():
        cells = cells.with_columns(pl.Series(name, values_of, dtype=pl.Float64).fill_nan(None))
    above = [
        (pl.col(f"e_{name}") > pl.col(f"matched_tau_{name}")).alias(f"above_matched_{name}") for name in ("sem", "per")
    ]
    return cells.select(*KEY, *columns, *above)


def _numbers(cells: pl.DataFrame, pairs: Pairs) -> np.ndarray:
    """Return the number of each cell's prompt among the prompts with seed pairs, or -1 if it has none."""
    where = pl.DataFrame({"prompt_id": pairs.prompts, "at": range(len(pairs.prompts))},
                         schema={"prompt_id": pl.String, "at": pl.Int64})  # fmt: skip
    joined = cells.select("prompt_id").join(where, on="prompt_id", how="left", maintain_order="left")
    return joined["at"].fill_null(-1).to_numpy()


def shift_counts(tests: pl.DataFrame, study: pl.DataFrame) -> list[ShiftCounts]:
    """Return for each adapter how many non-target prompts it shifts at the false-discovery rate FDR.

    Args:
        tests: what `shift_tests` returned.
        study: the map without controls.
    """
    joined = study.filter(~pl.col("target")).select(KEY).join(tests, on=KEY, how="inner")
    counted = joined.group_by("adapter", maintain_order=True).agg(
        *(pl.col(f"q_{name}").is_not_null().sum().alias(f"tested_{name}") for name in TESTS),
        *((pl.col(f"q_{name}") <= FDR).sum().alias(f"shifted_{name}") for name in TESTS),
    )
    rows = [
        row
        | {f"shifted_{name}": None for name in TESTS if not row[f"tested_{name}"]}
        | {"method": f"Benjamini-Hochberg at {FDR:.0%} over the adapter's non-target prompts"}
        | {"reason": None if all(row[f"tested_{name}"] for name in TESTS) else UNTESTED}
        for row in counted.to_dicts()
    ]
    return cast(list[ShiftCounts], rows)
