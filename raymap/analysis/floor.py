"""What is no effect: re-seeding the base (the noise floor, and one matched to a mean over seeds), identity controls.

The paper's floor is a percentile of *single* seed pairs, while a cell is a *mean* over K seeds, which spreads √K times
less. The matched threshold of a prompt is the 95 % upper prediction limit for a mean of K of its seed pairs,

    m + t(0.95, df) · s · √(1/K + 1/n),

m the mean of its own n pairs, s² the variance of pairs within prompts, pooled over all prompts with df degrees of
freedom (Hahn & Meeker 1991, Statistical Intervals, chapter 4). It takes the means for normal and s for common to the
prompts. Up to five seeds a prompt's three pairs share seeds, so that s is somewhat too small.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from raymap.analysis.map import CONTROL, PERCENTILE, NoiseFloor, measured
from raymap.analysis.measures import BASIC
from raymap.analysis.numerics.crossed import CONFIDENCE, Group, contrast

RESAMPLES = 2_000
BOOTSTRAP = f"{CONFIDENCE:.0%} percentile bootstrap over prompts, {RESAMPLES} resamples"
OF_MEANS = f"{CONFIDENCE:.0%} t interval over prompts, of each the mean of its pairs"
NO_PAIRS = "noise.arrow holds no finite seed pair"
SINGLE_PAIRS = "every prompt has a single seed pair: no spread within prompts"
NO_CONTROL = "no identity control was drawn, so rounding is not bounded"


@dataclass(frozen=True)
class Pairs:
    """One measure of the base's seed pairs: `prompts` ascending, values float64, prompt by prompt from `starts`."""

    prompts: tuple[str, ...]
    values: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Each prompt's mean, (P,)."""
        return np.add.reduceat(self.values, self.starts) / self.counts if len(self.starts) else np.empty(0)

    @property
    def spread(self) -> tuple[float, int]:
        """Standard deviation of single pairs within prompts, and its degrees of freedom (0: unknown, NaN)."""
        df = int((self.counts - 1).sum())
        residuals = self.values - np.repeat(self.means, self.counts)
        return (float(np.sqrt((residuals**2).sum() / df)) if df else float("nan")), df

    def matched(self, at: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return matched thresholds (n,) for means over `seeds` (n,) of prompts numbered `at` (n,; -1: has no pair)."""
        s, df = self.spread
        if not df:
            return np.full(len(at), np.nan)
        known = at >= 0
        reach = stats.t.ppf(PERCENTILE, df) * s * np.sqrt(1 / seeds + 1 / np.where(known, self.counts[at], 1))
        return np.where(known, self.means[at] + reach, np.nan)


def pairs_of(noise: pl.DataFrame, measure: str) -> Pairs:
    """Return a measure of all seed pairs (schema NOISE) that are finite."""
    held = noise.select("prompt_id", pl.col(measure).cast(pl.Float64)).filter(pl.col(measure).is_finite())
    held = held.sort("prompt_id", maintain_order=True)
    sizes = held.group_by("prompt_id", maintain_order=True).len()
    counts = sizes["len"].to_numpy().astype(np.int64)
    return Pairs(tuple(sizes["prompt_id"]), held[measure].to_numpy(), np.cumsum(counts) - counts, counts)


def percentile_interval(pairs: Pairs) -> tuple[float, float] | None:
    """Return the bootstrap interval of the pairs' 95th percentile, whole prompts resampled; None with one prompt.

    A resample's percentile is that of every prompt's pairs as often as it was drawn (linear interpolation).
    """
    if len(pairs.prompts) < 2:
        return None
    order = np.argsort(pairs.values, kind="stable")
    values, of = pairs.values[order], np.repeat(np.arange(len(pairs.counts)), pairs.counts)[order]
    drawn = np.random.default_rng(0).integers(0, len(pairs.prompts), (RESAMPLES, len(pairs.prompts)))
    found = np.empty(RESAMPLES)
    for k, sample in enumerate(drawn):
        ends = np.bincount(sample, minlength=len(pairs.prompts))[of].cumsum()
        position = PERCENTILE * (ends[-1] - 1)
        low, high = values[np.searchsorted(ends, [np.floor(position), np.ceil(position)], side="right")]
        found[k] = low + (high - low) * (position % 1)
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def floor_summary(noise: pl.DataFrame, floor: NoiseFloor, seeds: int) -> dict[str, Any]:
    """Return what statistics.json says of the noise floor.

    Args:
        noise: schema NOISE.
        seeds: K of a complete cell, for the matched thresholds.
    """
    held = {measure.name: pairs_of(noise, measure.name) for measure in BASIC}
    result: dict[str, Any] = {"pairs": len(held["e_sem"].values)}
    for of, tau in zip(BASIC, (floor.tau_sem, floor.tau_per), strict=True):
        result[str(of.tau)] = None if tau is None else _percentile(held[of.name], tau)
    for measure in held:
        means = held[measure].means
        one = contrast(means[:, None], (Group(np.arange(len(means))),), (Group(np.arange(1)),)).as_dict()
        method = (
            "none" if one["low"] is None else f"{CONFIDENCE:.0%} t interval over prompts, of each the mean of its pairs"
        )
        result[f"mean_{measure}"] = one | {"values": len(held[measure].values), "method": method}
    result["matched"] = {measure: _matched(pairs, seeds) for measure, pairs in held.items()} | {
        "note": "a cell is a mean over seeds and spreads less than single pairs; a prompt's matched threshold is the "
        "95 % prediction limit for a mean over as many seed pairs as the cell has seeds, around the prompt's own pairs "
        "(shifts.arrow holds each cell's)"
    }
    result["note"] = "95th percentiles of single pairs of base seeds; the map's cells are means over seeds"
    result["reason"] = None if result["pairs"] else NO_PAIRS
    return result


def _percentile(pairs: Pairs, tau: float) -> dict[str, Any]:
    low, high = percentile_interval(pairs) or (None, None)
    reason = "one prompt has no spread between prompts" if low is None else None
    return {"value": tau, "low": low, "high": high, "n": len(pairs.prompts), "values": len(pairs.values),
            "method": BOOTSTRAP, "reason": reason}  # fmt: skip


def _matched(pairs: Pairs, seeds: int) -> dict[str, Any]:
    s, df = pairs.spread
    known = {"seeds": seeds, "prompts": len(pairs.prompts), "pairs": len(pairs.values), "df": df}
    if not df or seeds < 1:
        reason = "no cell has a seed" if df else SINGLE_PAIRS if len(pairs.values) else NO_PAIRS
        return {"median": None, "lowest": None, "highest": None, "sd_pair": None, **known, "reason": reason}
    every = np.arange(len(pairs.prompts))
    taus = pairs.matched(every, np.full(len(every), seeds))
    return {"median": float(np.median(taus)), "lowest": float(taus.min()), "highest": float(taus.max()),
            "sd_pair": s, **known, "reason": None}  # fmt: skip


def identity_control(cells: pl.DataFrame, proved: Collection[str]) -> dict[str, Any]:
    """Return whether every identity control gave exactly zero, its largest values, and what follows for other cells.

    The largest value of a null adapter that was drawn is the numerical floor: what rounding alone can do.

    Args:
        proved: adapters of which no picture was drawn; a control among them is 0 by construction and controls nothing.
    """
    held = cells.filter(pl.col("method") == CONTROL).drop_nulls([measure.column for measure in BASIC])
    controls = held.filter(~pl.col("adapter").is_in(sorted(proved)))
    known = {"proved": sorted(set(held["adapter"]) & set(proved))}
    if controls.is_empty():
        nothing = {f"below_{measure.name}": None for measure in BASIC}
        return {"present": False, "exact": None, "max_e_sem": None, "max_e_per": None, "cells": 0, **known, **nothing,
                "consequence": NO_CONTROL}  # fmt: skip
    largest = {m.name: float(np.abs(controls[m.column].to_numpy()).max()) for m in BASIC}
    exact = not any(largest.values())
    others = measured(cells)
    consequence = (
        "exactly 0: pairs are computed alike to the last bit, so any value above 0 is the adapter's doing"
        if exact
        else "not 0: base and adapted images were not computed alike, and smaller values say nothing"
    )
    return {
        "present": True, "exact": exact, "max_e_sem": largest["e_sem"], "max_e_per": largest["e_per"],
        "cells": controls.height, **known,
        **{f"below_{m}": int((others[m] <= top).sum()) for m, top in largest.items()},
        "consequence": consequence,
    }  # fmt: skip
