"""What counts as no effect: what re-seeding the base does (the noise floor), and what identity controls show.

The paper's floor is a percentile of *single* seed pairs, while a cell is a *mean* over K seeds, which spreads √K times
less. The matched threshold of a prompt is the 95 % upper prediction limit for a mean of K of its seed pairs,

    m + t(0.95, df) · s · √(1/K + 1/n),

where m is the mean of the prompt's own n pairs and s² the variance of pairs within prompts, pooled over all prompts
with df degrees of freedom (Hahn & Meeker 1991, Statistical Intervals, chapter 4). This assumes normal means and the
same s for all prompts. With up to five seeds the three pairs of a prompt share seeds, so s is slightly too small.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from raymap.analysis.estimates import PairsMean, Percentile
from raymap.analysis.map import PERCENTILE, NoiseFloor, measured
from raymap.analysis.measures import BASIC
from raymap.analysis.numerics.crossed import CONFIDENCE, Group, contrast
from raymap.analysis.statistics import FloorSummary, IdentityControl, MatchedFloor
from raymap.study.methods.method import CONTROL

RESAMPLES = 2_000
BOOTSTRAP = f"{CONFIDENCE:.0%} percentile bootstrap over prompts, {RESAMPLES} resamples"
OF_MEANS = f"{CONFIDENCE:.0%} t interval over prompts, of each the mean of its pairs"
NO_PAIRS = "noise.arrow holds no finite seed pair"
SINGLE_PAIRS = "every prompt has a single seed pair: no spread within prompts"
NO_CONTROL = "no identity control was drawn, so rounding is not bounded"


@dataclass(frozen=True)
class Pairs:
    """One measure of the base's seed pairs: `values` (float64), prompt by prompt.

    `prompts` are in ascending order. The values of each begin at its entry in `starts`, and `counts` is their number.
    """

    prompts: tuple[str, ...]
    values: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """The mean of each prompt's pairs, (P,)."""
        return np.add.reduceat(self.values, self.starts) / self.counts if len(self.starts) else np.empty(0)

    @property
    def spread(self) -> tuple[float, int]:
        """The standard deviation of single pairs within prompts and its degrees of freedom (NaN and 0 if unknown)."""
        df = int((self.counts - 1).sum())
        residuals = self.values - np.repeat(self.means, self.counts)
        return (float(np.sqrt((residuals**2).sum() / df)) if df else float("nan")), df

    def matched(self, at: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return the matched thresholds (n,) for means over `seeds` (n,) seeds of the prompts numbered `at` (n,).

        The number -1 stands for a prompt without seed pairs, whose threshold is NaN.
        """
        s, df = self.spread
        if not df:
            return np.full(len(at), np.nan)
        known = at >= 0
        reach = stats.t.ppf(PERCENTILE, df) * s * np.sqrt(1 / seeds + 1 / np.where(known, self.counts[at], 1))
        return np.where(known, self.means[at] + reach, np.nan)


def pairs_of(noise: pl.DataFrame, measure: str) -> Pairs:
    """Return one measure of all seed pairs (schema NOISE) for which it is finite."""
    finite = noise.select("prompt_id", pl.col(measure).cast(pl.Float64)).filter(pl.col(measure).is_finite())
    finite = finite.sort("prompt_id", maintain_order=True)
    sizes = finite.group_by("prompt_id", maintain_order=True).len()
    counts = sizes["len"].to_numpy().astype(np.int64)
    return Pairs(tuple(sizes["prompt_id"]), finite[measure].to_numpy(), np.cumsum(counts) - counts, counts)


def percentile_interval(pairs: Pairs) -> tuple[float, float] | None:
    """Return the bootstrap interval of the pairs' 95th percentile, resampling whole prompts; None if there is only one.

    The percentile of a resample, linearly interpolated, counts the pairs of a prompt as often as the prompt was drawn.
    """
    if len(pairs.prompts) < 2:
        return None
    order = np.argsort(pairs.values, kind="stable")
    values, of = pairs.values[order], np.repeat(np.arange(len(pairs.counts)), pairs.counts)[order]
    drawn = np.random.default_rng(0).integers(0, len(pairs.prompts), (RESAMPLES, len(pairs.prompts)))
    percentiles = np.empty(RESAMPLES)
    for k, sample in enumerate(drawn):
        ends = np.bincount(sample, minlength=len(pairs.prompts))[of].cumsum()
        position = PERCENTILE * (ends[-1] - 1)
        low, high = values[np.searchsorted(ends, [np.floor(position), np.ceil(position)], side="right")]
        percentiles[k] = low + (high - low) * (position % 1)
    low, high = np.quantile(percentiles, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def floor_summary(noise: pl.DataFrame, floor: NoiseFloor, seeds: int) -> FloorSummary:
    """Return what statistics.json says about the noise floor.

    Args:
        noise: schema NOISE.
        seeds: how many seeds a complete cell has (K), for the matched thresholds.
    """
    sem, per = (pairs_of(noise, measure.name) for measure in BASIC)
    pairs = len(sem.values)
    return {
        "pairs": pairs,
        "tau_sem": None if floor.tau_sem is None else percentile_estimate(sem, floor.tau_sem),
        "tau_per": None if floor.tau_per is None else percentile_estimate(per, floor.tau_per),
        "mean_e_sem": _mean(sem),
        "mean_e_per": _mean(per),
        "matched": {
            "e_sem": _matched(sem, seeds),
            "e_per": _matched(per, seeds),
            "note": "a cell is a mean over seeds and spreads less than single pairs; a prompt's matched threshold is "
            "the 95 % prediction limit for a mean over as many seed pairs as the cell has seeds, around the prompt's "
            "own pairs (shifts.arrow holds each cell's)",
        },
        "note": "95th percentiles of single pairs of base seeds; the map's cells are means over seeds",
        "reason": None if pairs else NO_PAIRS,
    }


def percentile_estimate(pairs: Pairs, tau: float) -> Percentile:
    """Return the 95th percentile `tau` of seed pairs as an estimate, with its bootstrap interval over prompts."""
    low, high = percentile_interval(pairs) or (None, None)
    reason = "one prompt has no spread between prompts" if low is None else None
    return {"value": tau, "low": low, "high": high, "n": len(pairs.prompts), "values": len(pairs.values),
            "method": BOOTSTRAP, "reason": reason}  # fmt: skip


def _mean(pairs: Pairs) -> PairsMean:
    """Return the mean over prompts of each prompt's mean over its pairs."""
    means = pairs.means
    estimate = contrast(means[:, None], (Group(np.arange(len(means))),), (Group(np.arange(1)),)).as_dict()
    estimate["method"] = "none" if estimate["low"] is None else OF_MEANS
    return {**estimate, "values": len(pairs.values)}


def _matched(pairs: Pairs, seeds: int) -> MatchedFloor:
    """Return the thresholds for means over `seeds` seeds, or the reason why there are none."""
    spread, df = pairs.spread
    sd, median, lowest, highest, reason = None, None, None, None, None
    if df and seeds:
        thresholds = pairs.matched(np.arange(len(pairs.prompts)), np.full(len(pairs.prompts), seeds))
        sd, median = spread, float(np.median(thresholds))
        lowest, highest = float(thresholds.min()), float(thresholds.max())
    else:
        reason = "no cell has a seed" if df else SINGLE_PAIRS if len(pairs.values) else NO_PAIRS
    return {
        "median": median, "lowest": lowest, "highest": highest, "sd_pair": sd, "seeds": seeds,
        "prompts": len(pairs.prompts), "pairs": len(pairs.values), "df": df, "reason": reason,
    }  # fmt: skip


def identity_control(cells: pl.DataFrame, proved: Collection[str]) -> IdentityControl:
    """Return whether all identity controls gave exactly zero, their largest values, and what follows for other cells.

    The largest value of a null adapter that was drawn is the numerical floor: what rounding alone can do.

    Args:
        cells: the map, controls included (schema MAP).
        proved: the adapters of which no image was drawn. A control among them is 0 by construction and shows nothing.
    """
    measured_controls = cells.filter(pl.col("method") == CONTROL).drop_nulls([measure.column for measure in BASIC])
    controls = measured_controls.filter(~pl.col("adapter").is_in(sorted(proved)))
    zero_by_proof = sorted(set(measured_controls["adapter"]) & set(proved))
    if controls.is_empty():
        return {"present": False, "exact": None, "max_e_sem": None, "max_e_per": None, "cells": 0,
                "proved": zero_by_proof, "below_e_sem": None, "below_e_per": None,
                "consequence": NO_CONTROL}  # fmt: skip
    sem, per = (float(np.abs(controls[measure.column].to_numpy()).max()) for measure in BASIC)
    exact = not (sem or per)
    others = measured(cells)
    consequence = (
        "exactly 0: pairs are computed alike to the last bit, so any value above 0 is the adapter's doing"
        if exact
        else "not 0: base and adapted images were not computed alike, and smaller values say nothing"
    )
    return {
        "present": True, "exact": exact, "max_e_sem": sem, "max_e_per": per, "cells": controls.height,
        "proved": zero_by_proof,
        "below_e_sem": int((others["e_sem"] <= sem).sum()), "below_e_per": int((others["e_per"] <= per).sum()),
        "consequence": consequence,
    }  # fmt: skip
