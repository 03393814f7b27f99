"""The paper's tables and figures from the map, each number with its interval and what it rests on."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl

from raymap.analysis.crossed import contrast
from raymap.analysis.cube import cube_of
from raymap.analysis.maps import NoiseFloor

TOP = 10
RESAMPLES = 1_000
ORDER = ("textual_inversion", "lora", "custom_diffusion")
"""The paper's order of methods, least entangling first (its eq. 13)."""


def by_method_and_category(study: pl.DataFrame) -> list[dict[str, Any]]:
    """Return Table 1: a row a (method, subject category) over non-target prompts.

    Args:
        study: the map without controls, with `entanglement` (E's summand).
    """
    cubes = {name: cube_of(study, column) for name, column in (("e_sem", "e_sem"), ("e_per", "e_per"),
             ("e_sem_signed", "e_sem_signed"), ("e", "entanglement"))}  # fmt: skip
    rows = []
    any_cube = cubes["e_sem"]
    for method in any_cube.methods:
        for category in sorted(set(any_cube.subject_categories.tolist())):
            columns = any_cube.columns(category, having=any_cube.method(method))
            if not len(columns.members):
                continue
            row: dict[str, Any] = {"method": method, "subject_category": category, "subjects": len(columns.members)}
            for name, cube in cubes.items():
                scope = cube.rows(cube.non_target(category))
                row[name] = contrast(cube.method(method), (scope,), (columns,)).as_dict()
                part = cube.method(method)[np.ix_(scope.members, columns.members)]
                means = part[~np.isnan(part).any(axis=1)].mean(axis=0) if len(scope.members) else np.empty(0)
                row[f"{name}_std"] = float(means.std(ddof=1)) if len(means) > 1 else None
            rows.append(row)
    return rows


def method_order(study: pl.DataFrame) -> list[dict[str, Any]]:
    """Return, for each subject category and pair of methods next to each other in the paper's order, their difference.

    Subjects are paired: only those that both methods were trained for count.
    """
    rows = []
    for measure in ("e_sem", "entanglement"):
        cube = cube_of(study, measure)
        present = [method for method in ORDER if method in cube.methods]
        for low, high in itertools.pairwise(present):
            difference = cube.method(high) - cube.method(low)
            for category in sorted(set(cube.subject_categories.tolist())):
                columns = cube.columns(category, having=difference)
                estimate = contrast(difference, (cube.rows(cube.non_target(category)),), (columns,), "greater")
                rows.append(
                    {
                        "measure": "e" if measure == "entanglement" else measure,
                        "subject_category": category,
                        "claim": f"{low} < {high}",
                        "difference": estimate.as_dict(),
                        "p": estimate.p,
                        "holds": None if estimate.value is None else estimate.value > 0,
                    }
                )
    return rows


def by_category(study: pl.DataFrame) -> list[dict[str, Any]]:
    """Return Fig. 3: mean E_sem and E_per of each subject category on each prompt category, with intervals."""
    cubes = {measure: cube_of(study, measure) for measure in ("e_sem", "e_per")}
    cube = cubes["e_sem"]
    return [
        {
            "subject_category": subjects,
            "prompt_category": prompts,
            **{
                name: contrast(c.over_methods(), (c.rows({prompts}),), (c.columns(subjects),)).as_dict()
                for name, c in cubes.items()
            },
        }
        for subjects in sorted(set(cube.subject_categories.tolist()))
        for prompts in sorted(set(cube.prompt_categories.tolist()))
    ]


def regions(study: pl.DataFrame, floor: NoiseFloor) -> list[dict[str, Any]]:
    """Return Fig. 1: each adapter's mean E_sem and E_per over non-target prompts, and its region."""
    means = (
        study.filter(~pl.col("target"))
        .group_by("adapter", "method", "subject", "subject_category")
        .agg(pl.col("e_sem").mean(), pl.col("e_per").mean())
        .sort("adapter")
    )
    return [row | {"region": _region(row["e_sem"], row["e_per"], floor)} for row in means.to_dicts()]


def _region(e_sem: float | None, e_per: float | None, floor: NoiseFloor) -> str | None:
    if None in (e_sem, e_per, floor.tau_sem, floor.tau_per):
        return None
    semantic, visual = e_sem > floor.tau_sem, e_per > floor.tau_per  # type: ignore[operator]
    names = ("safe", "visual drift", "semantic drift", "full entanglement")
    return names[2 * semantic + visual]


def ranked_prompts(study: pl.DataFrame, descending: bool) -> list[dict[str, Any]]:
    """Return Table 2: the prompts that shift most, or least: means over the subjects they are no target of.

    `stability` is the share of resamples of subjects (with replacement) in which the prompt is in the list again;
    None with a single subject. Prompts without a complete cell are not ranked.
    """
    others = study.filter(~pl.col("target"))
    cube = cube_of(others, "e_sem")
    means, e_per = cube.over_methods(), cube_of(others, "e_per").over_methods()
    ranked = np.flatnonzero(~np.isnan(means).all(axis=1))
    sign = -1.0 if descending else 1.0
    values = np.nanmean(means[ranked], axis=1) if len(ranked) else np.empty(0)
    top = ranked[np.argsort(sign * values, kind="stable")][:TOP]
    texts = dict(others.select("prompt_id", "prompt").unique().iter_rows())
    return [
        {
            "prompt_id": cube.prompts[k],
            "prompt": texts[cube.prompts[k]],
            "prompt_category": cube.prompt_categories[k],
            "e_sem": float(np.nanmean(means[k])),
            "e_per": float(np.nanmean(e_per[k])),
            "subjects": int((~np.isnan(means[k])).sum()),
            "stability": share,
        }
        for k, share in zip(top, _stability(sign * means, top), strict=True)
    ]


def _stability(means: np.ndarray, top: np.ndarray) -> list[float | None]:
    """Return how often each of the `top` rows of smallest mean is among as many when columns are drawn again."""
    subjects = means.shape[1]
    if subjects < 2:
        return [None] * len(top)
    rng = np.random.default_rng(0)
    known, filled = ~np.isnan(means), np.nan_to_num(means)
    hits = np.zeros(len(means))
    for _ in range(RESAMPLES):
        weights = np.bincount(rng.integers(subjects, size=subjects), minlength=subjects).astype(float)
        n = known @ weights
        values = np.divide(filled @ weights, n, out=np.full(len(means), np.inf), where=n > 0)
        hits[np.argsort(values, kind="stable")[: len(top)]] += 1
    return [float(hits[k] / RESAMPLES) for k in top]
