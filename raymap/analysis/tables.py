"""The paper's tables and figures, computed from the map; each number comes with its interval and what it rests on."""

from __future__ import annotations

import itertools
from typing import cast

import numpy as np
import polars as pl

from raymap.analysis.cube import cubes_of, moving
from raymap.analysis.map import NoiseFloor
from raymap.analysis.measures import BASIC, E_PER, E_SEM, SIGNED, E
from raymap.analysis.numerics.crossed import Group, contrast
from raymap.analysis.paper.published import METHODS
from raymap.analysis.statistics import CategoryRow, MethodOrder, MethodRow, RankedPrompt, Region

TOP = 10
"""How many prompts the lists of fragile and robust ones hold."""
RESAMPLES = 1_000
BATCH = 50
"""How many resamples are ranked at a time, which bounds the memory."""


def by_method_and_category(study: pl.DataFrame) -> list[MethodRow]:
    """Return Table 1: one row per method and subject category, over non-target prompts.

    Args:
        study: the map without controls, with `entanglement` (E's summand).
    """
    order = (E_SEM, E_PER, SIGNED, E)
    cubes = dict(zip((m.name for m in order), cubes_of(study, *(m.column for m in order)), strict=True))
    rows = []
    any_cube = cubes["e_sem"]
    for method in any_cube.methods:
        for category in sorted(set(any_cube.subject_categories.tolist())):
            columns = any_cube.columns(category, having=any_cube.method(method))
            if not len(columns.members):
                continue
            row = {"method": method, "subject_category": category, "subjects": len(columns.members)}
            for name, cube in cubes.items():
                scope = cube.rows(cube.non_target(category))
                row[name] = contrast(cube.method(method), (scope,), (columns,)).as_dict()
                part = cube.method(method)[np.ix_(scope.members, columns.members)]
                means = part[~np.isnan(part).any(axis=1)].mean(axis=0) if len(scope.members) else np.empty(0)
                row[f"{name}_std"] = float(means.std(ddof=1)) if len(means) > 1 else None
            rows.append(cast(MethodRow, row))
    return rows


def method_order(study: pl.DataFrame) -> list[MethodOrder]:
    """Return the difference between each two methods that are neighbours in the paper's order, by subject category.

    Subjects are paired: only subjects that both methods were trained for count.
    """
    rows: list[MethodOrder] = []
    measures = (E_SEM, E)
    for measure, cube in zip(measures, cubes_of(study, *(m.column for m in measures)), strict=True):
        present = [method for method in METHODS if method in cube.methods]
        for low, high in itertools.pairwise(present):
            difference = cube.method(high) - cube.method(low)
            for category in sorted(set(cube.subject_categories.tolist())):
                columns = cube.columns(category, having=difference)
                estimate = contrast(difference, (cube.rows(cube.non_target(category)),), (columns,), "greater")
                rows.append(
                    {
                        "measure": measure.name,
                        "subject_category": category,
                        "claim": f"{low} < {high}",
                        "difference": estimate.as_dict(),
                        "p": estimate.p,
                        "direction_holds": None if estimate.value is None else estimate.value > 0,
                    }
                )
    return rows


def by_category(study: pl.DataFrame) -> list[CategoryRow]:
    """Return Figure 3: mean E_sem and E_per of each subject category on each prompt category, with intervals."""
    cube, per = cubes_of(moving(study), *(m.column for m in BASIC))
    return [
        {
            "subject_category": subjects,
            "prompt_category": prompts,
            "e_sem": contrast(cube.over_methods(), (cube.rows({prompts}),), (cube.columns(subjects),)).as_dict(),
            "e_per": contrast(per.over_methods(), (per.rows({prompts}),), (per.columns(subjects),)).as_dict(),
        }
        for subjects in sorted(set(cube.subject_categories.tolist()))
        for prompts in sorted(set(cube.prompt_categories.tolist()))
    ]


def regions(study: pl.DataFrame, floor: NoiseFloor) -> list[Region]:
    """Return Figure 1: each adapter's mean E_sem and E_per over its `n` measured non-target prompts, and its region."""
    others = study.filter(~pl.col("target"))
    means = (
        others.group_by("adapter", "method", "subject", "subject_category")
        .agg(pl.col("e_sem").mean(), pl.col("e_per").mean(), n=pl.col("e_sem").count())
        .sort("adapter")
    )
    return cast(list[Region], [row | _region(row["e_sem"], row["e_per"], floor) for row in means.to_dicts()])


def _region(e_sem: float | None, e_per: float | None, floor: NoiseFloor) -> dict[str, str | None]:
    if e_sem is None or e_per is None:
        return {"region": None, "reason": "no prompt has a complete seed"}
    if floor.tau_sem is None or floor.tau_per is None:
        return {"region": None, "reason": "no noise floor"}
    names = ("safe", "visual drift", "semantic drift", "full entanglement")
    return {"region": names[2 * (e_sem > floor.tau_sem) + (e_per > floor.tau_per)], "reason": None}


def ranked_prompts(study: pl.DataFrame, descending: bool) -> list[RankedPrompt]:
    """Return Table 2: the prompts that shift most, or least, by their means over the subjects they are no target of.

    `estimate` holds the means with intervals, which generalise over subjects for this one prompt. `stability` is the
    share of resamples of subjects, with replacement, that list the prompt again; None with a single subject. Prompts
    without a complete cell are not ranked.
    """
    others = moving(study).filter(~pl.col("target"))
    cube, per_cube = cubes_of(others, *(m.column for m in BASIC))
    means, e_per = cube.over_methods(), per_cube.over_methods()
    known = ~np.isnan(means)
    n = known.sum(axis=1)
    ranked = np.flatnonzero(n)
    sign = -1.0 if descending else 1.0
    values = np.nansum(means, axis=1)[ranked] / n[ranked]
    top = ranked[np.argsort(sign * values, kind="stable")][:TOP]
    texts = dict(others.select("prompt_id", "prompt").unique().iter_rows())
    rows: list[RankedPrompt] = []
    for k, share in zip(top, _stability(sign * means, top), strict=True):
        columns = Group(np.flatnonzero(known[k]))
        sem, per = (contrast(cells, (Group(np.array([k])),), (columns,)).as_dict() for cells in (means, e_per))
        rows.append(
            {
                "prompt_id": cube.prompts[k],
                "prompt": texts[cube.prompts[k]],
                "prompt_category": cube.prompt_categories[k],
                "e_sem": cast(float, sem["value"]),
                "e_per": per["value"],
                "subjects": int(n[k]),
                "estimate": {"e_sem": sem, "e_per": per},
                "stability": share,
            }
        )
    return rows


def _stability(means: np.ndarray, top: np.ndarray) -> list[float | None]:
    """Return how often each of the `top` rows, those of smallest mean, is among them if columns are resampled."""
    subjects = means.shape[1]
    if subjects < 2 or not len(top):
        return [None] * len(top)
    rng = np.random.default_rng(0)
    weights = np.array(
        [np.bincount(rng.integers(subjects, size=subjects), minlength=subjects) for _ in range(RESAMPLES)], float
    )
    known, filled = (~np.isnan(means)).astype(float), np.nan_to_num(means)
    hits = np.zeros(len(means))
    for part in np.array_split(weights, RESAMPLES // BATCH):
        n = part @ known.T
        values = np.divide(part @ filled.T, n, out=np.full(n.shape, np.inf), where=n > 0)
        hits += np.bincount(np.argsort(values, axis=1, kind="stable")[:, : len(top)].ravel(), minlength=len(means))
    return [float(hits[k] / RESAMPLES) for k in top]
