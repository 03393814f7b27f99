"""How a measure responds to interventions: dose-response curves, parts against the whole, direction against size.

Everything is computed over the prompts that are handed in, from cells of variants (schema INTERVENTIONS) and of the
adapters that the variants were made from (schema MAP).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from raymap.analysis.estimates import Crossed
from raymap.analysis.measures import BASIC
from raymap.analysis.numerics.crossed import CONFIDENCE, Group, contrast
from raymap.analysis.why.statistics import (
    AgainstRandom,
    DosePoint,
    DoseResponse,
    DoseStep,
    LevelMean,
    MethodDifference,
    PartsAndWhole,
    RandomRow,
    Ratio,
    Winner,
)

RESAMPLES = 2_000
OWN = "as trained"


def dose_response(cells: pl.DataFrame, measure: str) -> DoseResponse | None:
    """Return a measure's curve over doses, its slope and its monotonicity; None with fewer than two doses.

    The slope is that of each prompt's least-squares line through the origin (dose 0 is the base), Σ αE / Σ α², averaged
    over prompts. Monotonicity is each prompt's Kendall's τ-b of dose and measure, averaged over the prompts that move.
    `steps` are the rises from one dose to the next.
    """
    values, found = _matrix(cells, measure, "alpha")
    doses = np.array([float(d) for d in found])
    if len(doses) < 2:
        return None
    complete = values[~np.isnan(values).any(axis=1)]
    slopes = complete @ doses / (doses @ doses)
    moved = complete[np.ptp(complete, axis=1) > 0]
    taus = np.array([stats.kendalltau(doses, row).statistic for row in moved])
    curve: list[DosePoint] = [{"dose": float(dose), **mean_over_prompts(values[:, k])} for k, dose in enumerate(doses)]
    steps: list[DoseStep] = [
        {"from": float(doses[a]), "to": float(doses[b]), **mean_over_prompts(complete[:, b] - complete[:, a])}
        for a, b in pairwise(range(len(doses)))
    ]
    return {
        "curve": curve,
        "slope": mean_over_prompts(slopes),
        "monotonicity": mean_over_prompts(taus),
        "steps": steps,
    }


def parts_and_whole(cells: pl.DataFrame, whole: pl.DataFrame, measure: str) -> PartsAndWhole | None:
    """Return a measure of every part alone, of their sum and of the whole adapter; None if there are no parts.

    `sum_over_whole` is the ratio of the means over prompts: 1 if the parts' effects add up.
    """
    values, levels = _matrix(cells, measure, "level")
    if not levels:
        return None
    together = _beside(cells, values, whole, measure)
    total = values.sum(axis=1)
    means: list[LevelMean] = [{"level": level, **mean_over_prompts(values[:, k])} for k, level in enumerate(levels)]
    return {
        "levels": means,
        "sum": mean_over_prompts(total),
        "whole": mean_over_prompts(together),
        "sum_over_whole": ratio(total, together),
    }


def against_random(cells: pl.DataFrame, whole: pl.DataFrame, measure: str) -> AgainstRandom | None:
    """Compare an adapter with the average of random updates of its norm and rank; None if there are none."""
    values, seeds = _matrix(cells, measure, "level")
    if not seeds:
        return None
    own, mean = _beside(cells, values, whole, measure), values.mean(axis=1)
    return {
        "draws": len(seeds),
        "learned": mean_over_prompts(own),
        "random": mean_over_prompts(mean),
        "difference": mean_over_prompts(own - mean),
        "random_over_learned": ratio(mean, own),
    }


def compare_methods(cells: pl.DataFrame, plain: pl.DataFrame) -> list[MethodDifference]:
    """Return the differences between methods within subjects: as trained, with random updates, at equal norm or size.

    Only prompts that are not a target of any subject count. Prompts and subjects are both samples (crossed).
    """
    intervened = plain.filter(pl.col("adapter").is_in(cells["intervened"].unique().implode()))
    scales = [(OWN, intervened)]
    for (family, level), part in cells.group_by("family", "level", maintain_order=True):
        if family in ("norm", "budget"):
            scales.append((f"equal {family} {level}", part))
    scales.append(("random", cells.filter(pl.col("family") == "random")))
    rows: list[MethodDifference] = []
    for scale, part in scales:
        means = part.group_by("prompt_id", "subject", "method", maintain_order=True).agg(
            pl.col([m.column for m in BASIC]).mean()
        )
        for first, second in combinations(sorted(means["method"].unique()), 2):
            one, other = (means.filter(pl.col("method") == method) for method in (first, second))
            pairs = one.join(other, on=["prompt_id", "subject"], suffix="_other")
            for measure in (m.name for m in BASIC):
                both = pairs.with_columns(difference=pl.col(measure) - pl.col(f"{measure}_other"))
                values, _ = _matrix(both, "difference", "subject")
                found = contrast(values, [_all(values, 0)], [_all(values, 1)]) if values.size else None
                if found is not None:
                    rows.append({"scale": scale, "measure": measure, "first": first, "second": second,
                                 **found.as_dict(), "order": _order(found.low, found.high)})  # fmt: skip
    return rows


def _order(low: float | None, high: float | None) -> Winner:
    """Return which of two is larger by the interval of their difference."""
    if low is None or high is None:
        return "unknown"
    return "first" if low > 0 else "second" if high < 0 else "neither"


def reading(random: Sequence[RandomRow], methods: Sequence[MethodDifference]) -> list[str]:
    """Return what the direction and the size of updates have to do with shifts, in plain sentences for the report."""
    lines = []
    for compared in random:
        share = compared["random_over_learned"]
        if share["low"] is not None:
            interval = f"{CONFIDENCE:.0%} interval {share['low']:.2f} to {share['high']:.2f}"
            lines.append(
                f"{compared['measure'].capitalize()}: random updates of the norm and rank of {compared['adapter']} "
                f"shift other prompts {share['value']:.2f} times as much as it does ({interval})."
            )
    for row in methods:
        if row["scale"] != OWN:
            continue
        measure = row["measure"].capitalize()
        if row["order"] not in ("first", "second"):
            lines.append(f"{measure}: {row['first']} and {row['second']} as trained are not told apart.")
            continue
        more, less = (row["first"], row["second"]) if row["order"] == "first" else (row["second"], row["first"])
        lines.append(f"{measure}: as trained, {more} shifts other prompts more than {less}.")
        key = (row["measure"], row["first"], row["second"])
        others = [m for m in methods if m is not row and (m["measure"], m["first"], m["second"]) == key]
        lines += [f"{measure}: {_meaning(m['scale'], m['order'], row['order'])}" for m in others]
    return lines


def _meaning(scale: str, order: Winner, trained: Winner) -> str:
    """Return what the order under another scale says about the order as trained."""
    where = "with random updates of each one's norm and rank" if scale == "random" else f"at {scale}"
    if order in ("neither", "unknown"):
        return f"{where} the two are not told apart."
    if order == trained:
        why = "size and place alone give it" if scale == "random" else "the amount of change does not explain it"
        return f"{where} the order is the same: {why}."
    why = "what was learned decides it" if scale == "random" else "the amount of change explains it"
    return f"{where} the order is reversed: {why}."


def _matrix(cells: pl.DataFrame, measure: str, by: str) -> tuple[np.ndarray, list[Any]]:
    """Return a measure as float64 (prompts sorted by id, levels sorted), NaN for a missing cell, and the levels."""
    prompts, levels = (cells[column].unique().sort().to_list() for column in ("prompt_id", by))
    values = np.full((len(prompts), len(levels)), np.nan)
    rows, columns = ({key: k for k, key in enumerate(keys)} for keys in (prompts, levels))
    for prompt, level, value in cells.select("prompt_id", by, measure).iter_rows():
        values[rows[prompt], columns[level]] = np.nan if value is None else value
    return values, levels


def _beside(cells: pl.DataFrame, values: np.ndarray, whole: pl.DataFrame, measure: str) -> np.ndarray:
    """Return the whole adapter's measure of a matrix's prompts, NaN for those it lacks."""
    own = dict(whole.select("prompt_id", measure).iter_rows())
    prompts = cells["prompt_id"].unique().sort().to_list()
    return np.array([np.nan if own.get(p) is None else own[p] for p in prompts], np.float64)


def _all(values: np.ndarray, axis: int) -> Group:
    return Group(np.arange(values.shape[axis]))


def mean_over_prompts(values: np.ndarray) -> Crossed:
    """Return the mean over prompts (P,) with its interval, which holds for this adapter."""
    column = values[:, None]
    return contrast(column, [_all(column, 0)], [_all(column, 1)]).as_dict()


def ratio(above: np.ndarray, below: np.ndarray) -> Ratio:
    """Return the ratio of two means over prompts (P,), with a percentile bootstrap interval over prompts."""
    known = ~(np.isnan(above) | np.isnan(below))
    above, below = above[known], below[known]
    method = f"ratio of means, {CONFIDENCE:.0%} percentile bootstrap over prompts, {RESAMPLES} resamples"
    if not below.sum() > 0:
        return {"value": None, "low": None, "high": None, "n": len(below), "method": method}
    low = high = None
    if len(below) > 1:
        interval = stats.bootstrap(
            (above, below), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True, vectorized=True,
            n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        low, high = float(interval.low), float(interval.high)
    return {"value": float(above.mean() / below.mean()), "low": low, "high": high, "n": len(below), "method": method}
