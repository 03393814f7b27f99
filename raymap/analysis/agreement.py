"""Distances between what base and adapters draw, from the features that a run keeps, and whether they agree with E."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from raymap.analysis.distances import distances_by_category
from raymap.plan import BASE
from raymap.store.files import files_in, local_copy

KEY = ["prompt_id", "seed"]
PROVED = "every picture is the base's own by proof, so base and adapted sample are the same"


def read_features(folder: Path) -> pl.DataFrame:
    """Return a run folder's image features (schema FEATURES), without rows where there are none."""
    with local_copy(folder / "features") as copy:
        frames = [pl.read_ipc(path) for path in files_in(copy, ".arrow")]
    return pl.concat(frames) if frames else pl.DataFrame()


def distances(features: pl.DataFrame, scores: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """Return FID, KID and CMMD between base and adapted pictures, a row an (adapter, prompt category, design, metric).

    Args:
        features: as `read_features` returns them; none gives none.
        scores: schema SCORES; adapters that were never drawn have no features, and no distance: 0 by proof.
        name: what the features are, as `clip:embedded`.
    """
    if features.is_empty():
        return []
    base = features.filter(pl.col("adapter") == BASE)
    rows: list[dict[str, Any]] = []
    for part in features.filter(pl.col("adapter") != BASE).partition_by("adapter", maintain_order=True):
        paired = part.join(base, on=KEY, suffix="_base").sort(KEY)
        found = distances_by_category(
            np.array(paired["feature_base"].to_list()),
            np.array(paired["feature"].to_list()),
            paired["prompt_id"].to_numpy(),
            paired["seed"].to_numpy(),
            paired["prompt_category"].to_numpy(),
            paired["adapter"].to_numpy(),
            name,
        )
        rows += [asdict(row) for row in found]
    undrawn = sorted(set(scores["adapter"].unique()) - set(features["adapter"].unique()))
    return rows + [{"adapter": adapter, "value": 0.0, "reason": PROVED} for adapter in undrawn]


def agreement(found: list[dict[str, Any]], cells: pl.DataFrame) -> list[dict[str, Any]]:
    """Return Spearman's rank correlation of each distance with E over (adapter, prompt category), for each design.

    Args:
        found: what `distances` returned.
        cells: the map without controls, with `entanglement`.
    """
    known = [row for row in found if row.get("metric") and row["value"] is not None]
    if not known:
        return []
    ours = cells.group_by("adapter", "prompt_category").agg(pl.col("entanglement").mean())
    table = pl.DataFrame(known).select("adapter", "prompt_category", "metric", "design", "features", "value")
    rows = []
    for (metric, design), part in table.group_by("metric", "design", maintain_order=True):
        both = part.join(ours, on=["adapter", "prompt_category"]).drop_nulls()
        row = {"metric": metric, "design": design, "features": part["features"][0], "n": both.height}
        if both.height < 3 or both["value"].n_unique() < 2 or both["entanglement"].n_unique() < 2:
            rows.append(row | {"rho": None, "reason": "fewer than three different values"})
        else:
            rho = float(stats.spearmanr(both["value"].to_numpy(), both["entanglement"].to_numpy()).statistic)
            rows.append(row | {"rho": rho, "reason": None})
    return rows
