"""Distances between the images of base and adapters, from the features that a run keeps, and how they agree with E."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

import numpy as np
import polars as pl
import polars.selectors as cs
from scipy import stats

from raymap.analysis.numerics.distances import distances_by_category
from raymap.analysis.statistics import Agreement, DistanceRow
from raymap.plan.blocks import BASE

IMAGE = ("prompt_id", "seed")
"""What names one of a model's images."""


def distances(features: pl.DataFrame, scores: pl.DataFrame, name: str) -> list[DistanceRow]:
    """Return FID, KID and CMMD between base and adapted images.

    There is one row per adapter, prompt category, design and metric.

    Args:
        features: as `read_features` returns them.
        scores: schema SCORES. Where `drawn` is false, the adapted image is the base's own, and so are its features.
        name: what the features are, for example `clip:embedded`.
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
    rows: list[DistanceRow] = []
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
        rows += [cast(DistanceRow, asdict(row)) for row in found]
    return rows


def agreement(found: Sequence[DistanceRow], cells: pl.DataFrame) -> list[Agreement]:
    """Return Spearman's rank correlation of each distance with E over adapters and prompt categories, for each design.

    Args:
        found: what `distances` returned.
        cells: the map without controls, with `entanglement`. Adapters that shift nothing at all are left out: they are
            tied at the end of both rankings and would agree by construction.
    """
    cells = cells.filter((pl.max_horizontal("e_sem", "e_per") > 0).any().over("adapter"))
    known = [row for row in found if row["value"] is not None]
    if not known:
        return []
    ours = cells.group_by("adapter", "prompt_category").agg(pl.col("entanglement").mean())
    table = pl.DataFrame(known).select("adapter", "prompt_category", "metric", "design", "features", "value")
    rows: list[Agreement] = []
    for (metric, design), part in table.group_by("metric", "design", maintain_order=True):
        both = part.join(ours, on=["adapter", "prompt_category"]).drop_nulls()
        rho, reason = None, None
        if both.height < 3 or both["value"].n_unique() < 2 or both["entanglement"].n_unique() < 2:
            reason = "fewer than three different values"
        else:
            rho = float(stats.spearmanr(both["value"].to_numpy(), both["entanglement"].to_numpy()).statistic)
        rows.append({"metric": str(metric), "design": str(design), "features": part["features"][0], "n": both.height,
                     "rho": rho, "reason": reason})  # fmt: skip
    return rows
