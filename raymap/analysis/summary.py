"""From the map to statistics.json: every estimate with its interval, n and method."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from raymap.analysis.crossed import CONFIDENCE
from raymap.analysis.hypotheses import hypotheses
from raymap.analysis.maps import CONTROL, PERCENTILE, NoiseFloor, measured, with_entanglement
from raymap.analysis.shifts import shift_counts
from raymap.analysis.tables import by_category, by_method_and_category, method_order, ranked_prompts, regions

RESAMPLES = 2_000
BOOTSTRAP = f"{CONFIDENCE:.0%} percentile bootstrap over prompts, {RESAMPLES} resamples"


def over_prompts(groups: list[np.ndarray], statistic: str = "mean") -> dict[str, Any]:
    """Estimate a mean or the noise percentile with an interval that resamples whole prompts.

    Args:
        groups: one array of values a prompt.

    Returns:
        `value` (None without prompts), `low`, `high` (None with fewer than two prompts), `n` (prompts), `values` and
        `method`.
    """
    if not groups:
        return {"value": None, "low": None, "high": None, "n": 0, "values": 0, "method": "none: no prompt"}

    def value(rows: np.ndarray) -> float:
        pooled = np.concatenate([groups[int(k)] for k in rows])
        return float(pooled.mean() if statistic == "mean" else np.quantile(pooled, PERCENTILE))

    rows = np.arange(len(groups))
    low = high = None
    if len(groups) > 1:
        interval = stats.bootstrap(
            (rows,), value, vectorized=False, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
            method="percentile", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        low, high = float(interval.low), float(interval.high)
    n = sum(len(g) for g in groups)
    return {
        "value": value(rows),
        "low": low,
        "high": high,
        "n": len(groups),
        "values": n,
        "method": BOOTSTRAP,
    }


def _groups(frame: pl.DataFrame, column: str) -> list[np.ndarray]:
    known = frame.select("prompt_id", pl.col(column).cast(pl.Float64)).drop_nulls()
    parts = known.partition_by("prompt_id", maintain_order=True)
    return [part[column].to_numpy() for part in parts]


def summarize(
    cells: pl.DataFrame, noise: pl.DataFrame, tests: pl.DataFrame, floor: NoiseFloor, digest: str
) -> dict[str, Any]:
    """Return what statistics.json holds.

    Args:
        cells: the map (schema MAP), controls included.
        noise: base seed pairs (schema NOISE).
        tests: each cell's p- and q-values (raymap.analysis.shifts).
    """
    study = with_entanglement(measured(cells))
    return {
        "digest": digest,
        "noise_floor": _floor(noise, floor),
        "identity_control": identity_control(cells),
        "incomplete": incomplete(cells),
        "adapters": [_adapter(part) for part in study.partition_by("adapter", maintain_order=True)],
        "normalization": {
            "method": "min-max over all prompts and adapters, controls left out",
            "e_sem": [study["e_sem"].min(), study["e_sem"].max()],
            "e_per": [study["e_per"].min(), study["e_per"].max()],
        },
        "table_1": by_method_and_category(study),
        "method_order": method_order(study),
        "most_fragile": ranked_prompts(study, descending=True),
        "most_robust": ranked_prompts(study, descending=False),
        "category_by_category": by_category(study),
        "regions": regions(study, floor),
        "hypotheses": hypotheses(study),
        "shifts": shift_counts(tests, study),
    }


def _floor(noise: pl.DataFrame, floor: NoiseFloor) -> dict[str, Any]:
    if noise.is_empty():
        return {"pairs": 0, "tau_sem": None, "tau_per": None}
    return {
        "pairs": noise.height,
        "tau_sem": over_prompts(_groups(noise, "e_sem"), "percentile") | {"value": floor.tau_sem},
        "tau_per": over_prompts(_groups(noise, "e_per"), "percentile") | {"value": floor.tau_per},
        "mean_e_sem": over_prompts(_groups(noise, "e_sem")),
        "mean_e_per": over_prompts(_groups(noise, "e_per")),
        "note": "95th percentiles of single pairs of base seeds; the map's cells are means over seeds",
    }


def identity_control(cells: pl.DataFrame) -> dict[str, Any]:
    """Return whether every identity control gave exactly zero, and its largest values."""
    controls = cells.filter(pl.col("method") == CONTROL)
    if controls["e_sem"].is_null().all():
        return {"present": False, "exact": None, "max_e_sem": None, "max_e_per": None, "cells": 0}
    controls = controls.drop_nulls(["e_sem", "e_per"])
    sem, per = controls["e_sem"].to_numpy().max(initial=0.0), controls["e_per"].to_numpy().max(initial=0.0)
    return {
        "present": True,
        "exact": bool(sem == 0 and per == 0),
        "max_e_sem": float(sem),
        "max_e_per": float(per),
        "cells": controls.height,
    }


def incomplete(cells: pl.DataFrame) -> list[dict[str, Any]]:
    """Return, for each adapter that has them, how many cells hold fewer seeds than the map's fullest, and which."""
    short = cells.filter(pl.col("n_seeds") < pl.col("n_seeds").max())
    grouped = short.group_by("adapter", maintain_order=True).agg(
        pl.len().alias("cells"), pl.col("n_seeds").min().alias("fewest_seeds"), pl.col("prompt_id").alias("prompts")
    )
    return [row | {"seeds": cells["n_seeds"].max()} for row in grouped.to_dicts()]


def _adapter(part: pl.DataFrame) -> dict[str, Any]:
    others = part.filter(~pl.col("target"))
    first = part.row(0, named=True)
    scope = "all prompts but those of the subject's own category"
    return {
        **{key: first[key] for key in ("adapter", "method", "subject", "subject_category")},
        "scope": scope,
        **{
            key: over_prompts(_groups(others, column))
            for key, column in (
                ("e_sem", "e_sem"), ("e_sem_signed", "e_sem_signed"), ("e_per", "e_per"), ("e", "entanglement"),
            )
        },
        "above_tau_sem": int(others["above_tau_sem"].sum()),
        "above_tau_per": int(others["above_tau_per"].sum()),
        "target_e_sem": part.filter(pl.col("target"))["e_sem"].mean(),
        "target_e_per": part.filter(pl.col("target"))["e_per"].mean(),
    }  # fmt: skip
