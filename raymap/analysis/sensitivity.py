"""How much E depends on the range that its two measures are scaled by.

E averages ½(minmax(E_sem) + minmax(E_per)), and a single extreme cell sets the range of all others. Four ranges are
compared: the range of the whole map (the default), of each method's cells, of each prompt category's cells, and from
the 1st to the 99th percentile of the map (linearly interpolated; values outside are set to 0 or 1).
"""

from __future__ import annotations

from typing import cast

import polars as pl
from scipy import stats

from raymap.analysis.measures import E_PER, E_SEM
from raymap.analysis.statistics import AdapterUnderRanges, RangeOrder, Sensitivity

RANGES = ("map", "method", "prompt_category", "robust")


def entanglement(ranges: str) -> pl.Expr:
    """Return ½(scaled E_sem + scaled E_per) of a cell under one of RANGES; a measure without range counts as 0."""

    def scaled(name: str) -> pl.Expr:
        value = pl.col(name)
        low, high = value.min(), value.max()
        if ranges == "robust":
            low, high = value.quantile(0.01, "linear"), value.quantile(0.99, "linear")
        elif ranges != "map":
            low, high = low.over(ranges), high.over(ranges)
        inside = ((value - low) / (high - low)).clip(0.0, 1.0)
        return pl.when(value.is_not_null()).then(pl.when(high > low).then(inside).otherwise(0.0))

    return (scaled(E_SEM.column) + scaled(E_PER.column)) / 2


def sensitivity(study: pl.DataFrame) -> Sensitivity:
    """Return each adapter's mean E over non-target prompts under each range, and how well the orders agree.

    Args:
        study: the map without controls.
    """
    named = study.with_columns(entanglement(name).alias(name) for name in RANGES)
    others = named.filter(~pl.col("target"), pl.col("map").is_not_null())
    table = others.group_by("adapter").agg(*(pl.col(name).mean() for name in RANGES), n=pl.len()).sort("adapter")
    # An adapter that shifts nothing is lowest under every range, so that it makes any two orders alike.
    moving = study.filter((pl.col(E_SEM.column) > 0) | (pl.col(E_PER.column) > 0))["adapter"].unique().to_list()
    return {
        "ranges": {
            "map": "min-max over all prompts and adapters, controls left out (the default)",
            "method": "min-max over each method's cells",
            "prompt_category": "min-max over each prompt category's cells",
            "robust": "1st to 99th percentile of the map, clipped",
        },
        "adapters": cast(list[AdapterUnderRanges], table.to_dicts()),
        "orders": [_order(table, name) for name in RANGES[1:]],
        "orders_of_moving": [_order(table.filter(pl.col("adapter").is_in(moving)), name) for name in RANGES[1:]],
    }


def _order(table: pl.DataFrame, name: str) -> RangeOrder:
    """Return the rank correlations of the adapters' order under a range with their order under the default range."""
    kendall, spearman, reason = None, None, None
    if table.height < 3 or min(table["map"].n_unique(), table[name].n_unique()) < 2:
        reason = "fewer than three adapters, or all are equal"
    else:
        default, other = table["map"].to_numpy(), table[name].to_numpy()
        kendall = float(stats.kendalltau(default, other).statistic)
        spearman = float(stats.spearmanr(default, other).statistic)
    return {"range": name, "n": table.height, "kendall": kendall, "spearman": spearman, "reason": reason}
