"""Distances between what base and adapters draw, from the features that a run keeps, and whether they agree with E."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from scipy import stats

from raymap.analysis.numerics.distances import distances_by_category
from raymap.plan.blocks import BASE

IMAGE = ("prompt_id", "seed")
"""What names an image of one model."""


def distances(features: pl.DataFrame, scores: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """Return FID, KID and CMMD between base and adapted pictures, a row an (adapter, prompt category, design, metric).

    Args:
        features: as `read_features` returns them.
        scores: schema SCORES; where `drawn` is false, the adapted picture is the base's own and so are its features.
        name: what the features are, as `clip:embedded`.
    """
    scores = scores.cast({cs.enum(): pl.String})
    base = features.filter(pl.col("adapter") == BASE).select(*IMAGE, base="feature")
    adapted = features.select("adapter", *IMAGE, "feature")
    pairs = (
        scores.join(base, on=IMAGE)
        .join(adapted, on=["adapter", *IMAGE], how="left")
        .with_columns(adapted=pl.when("drawn").then("feature").otherwise("base"))
        .drop_nulls("adapted")
        .sort("adapter", *IMAGE)
    )
    rows: list[dict[str, Any]] = []
    for part in pairs.partition_by("adapter", maintain_order=True):
        found = distances_by_category(
            np.array(part["base"].to_list()),
            np.array(part["adapted"].to_list()),
            part["prompt_id"].to_numpy(),
            part["seed"].to_numpy(),
            part["prompt_category"].to_numpy(),
            part["adapter"].to_numpy(),
            name,
        )
        rows += [asdict(row) for row in found]
    return rows


def agreement(found: list[dict[str, Any]], cells: pl.DataFrame) -> list[dict[str, Any]]:
    """Return Spearman's rank correlation of each distance with E over (adapter, prompt category), for each design.

    Args:
        found: what `distances` returned.
        cells: the map without controls, with `entanglement`. Adapters that shift nothing at all are left out: tied at
            the end of both rankings, they would agree of themselves.
    """
    cells = cells.filter((pl.max_horizontal("e_sem", "e_per") > 0).any().over("adapter"))
    known = [row for row in found if row["value"] is not None]
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
