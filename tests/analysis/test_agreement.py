"""Distances between distributions, from the features that a run keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from raymap.analysis.agreement import agreement, distances


def test_a_larger_shift_has_the_larger_distance_and_the_ranks_are_scipys() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, (12, 6, 8))
    held = []
    for name, shift in (("base", 0.0), ("small", 0.3), ("middle", 1.0), ("large", 3.0)):
        for p, k in np.ndindex(12, 6):
            feature = base[p, k] + shift * np.ones(8) + 0.1 * (name != "base") * rng.normal(0, 1, 8)
            category = ("people", "animals")[p % 2]
            held.append({"adapter": name, "prompt_id": f"p{p}", "prompt_category": category, "seed": k,
                         "feature": feature.tolist()})  # fmt: skip
    features = pl.DataFrame(held)
    # "proved" was never drawn; of "large", the animals were not: where nothing is drawn, nothing has moved.
    scores = pl.DataFrame(
        [
            row
            | {"adapter": name, "drawn": name != "proved" and (name, row["prompt_category"]) != ("large", "animals")}
            for name in ("small", "middle", "large", "proved")
            for row in features.filter(pl.col("adapter") == "base").drop("adapter", "feature").to_dicts()
        ]
    )
    undrawn = (pl.col("adapter") == "large") & (pl.col("prompt_category") == "animals")
    found = distances(features.filter(~undrawn), scores, "clip:test")
    still = [
        r for r in found if r["adapter"] == "proved" or (r["adapter"], r["prompt_category"]) == ("large", "animals")
    ]
    assert {row["value"] for row in still if row["design"] == "seed-matched"} == {0.0}
    assert len(still) == 3 * 6
    fids: dict[Any, Any] = {
        (row["adapter"], row["prompt_category"]): row["value"]
        for row in found
        if row.get("metric") == "fid" and row["design"] == "seed-matched"
    }
    assert fids["small", "people"] < fids["middle", "people"] < fids["large", "people"]
    cells = pl.DataFrame(
        {"adapter": [a for a, _ in fids], "prompt_category": [c for _, c in fids],
         "entanglement": np.arange(len(fids), dtype=float)}
    ).with_columns(e_sem=(pl.col("adapter") != "proved").cast(pl.Float64), e_per=0.0)  # fmt: skip
    rho = {(row["metric"], row["design"]): row["rho"] for row in agreement(found, cells)}
    moving = [k for k, (adapter, _) in enumerate(fids) if adapter != "proved"]  # who moves nothing agrees of itself
    known = stats.spearmanr([list(fids.values())[k] for k in moving], moving).statistic
    assert rho["fid", "seed-matched"] == pytest.approx(known)
