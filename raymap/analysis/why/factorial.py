"""Is it composition that is fragile, or abstractness? A 2 × 2 test that the paper's Property 2 can fail.

The paper compares abstract with concrete prompts and concludes that compositional grounding is fragile. But its
abstract prompts are compositions as well. Here the two vary separately: concrete or abstract × simple or compositional.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import yaml

from raymap.analysis.cube import cubes_of
from raymap.analysis.map import measured
from raymap.analysis.measures import BASIC
from raymap.analysis.numerics.crossed import Group, contrast
from raymap.analysis.read import read_map
from raymap.analysis.why.statistics import DesignContrast, DesignMean, FactorialSummary
from raymap.errors import InputError
from raymap.store.files import as_json, write_atomically
from raymap.study.suite import SUITES

SUITE = "embedded-factorial"
KINDS = ("concrete", "abstract")
MAKES = ("simple", "compositional")
CONTRASTS = {
    "composition": {"concrete": (-0.5, 0.5), "abstract": (-0.5, 0.5)},
    "abstractness": {"concrete": (-0.5, -0.5), "abstract": (0.5, 0.5)},
    "interaction": {"concrete": (1.0, -1.0), "abstract": (-1.0, 1.0)},
}
"""Weights of the means of simple and compositional prompts, for both main effects and for their interaction.

The interaction is how much more composition does to abstract prompts than to concrete ones.
"""

Design = dict[str, tuple[str, str]]
"""Prompt -> (kind, make)."""


def read_design(path: Path = SUITES / f"{SUITE}.yaml") -> Design:
    """Return the design that a suite's file gives beside its prompts."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {entry["prompt"]: (entry["kind"], entry["make"]) for entry in entries}


def reduce_factorial(folder: Path) -> FactorialSummary:
    """Write factorial.json from a run folder's map, and return what it holds.

    Raises:
        InputError: the run's prompts do not fill the design.
    """
    cells, design = measured(read_map(folder)), read_design()
    missing = set(design.values()) - {design[text] for text in cells["prompt"].unique() if text in design}
    if missing:
        problem = f"has no prompt that is {' and '.join(min(missing))}"
        raise InputError(str(folder), problem, f"run a study with `suite: {SUITE}`")
    found = factorial(cells, design)
    write_atomically(folder / "factorial.json", as_json(found))
    return found


def factorial(cells: pl.DataFrame, design: Design) -> FactorialSummary:
    """Estimate the main effects and the interaction, for prompts and subjects that are both samples.

    Args:
        cells: the map without controls (schema MAP); prompts outside the design do not count.
    """
    inside = cells.filter(pl.col("prompt").is_in(list(design)))
    places = inside.select("prompt_id", "prompt").unique().sort("prompt_id")
    factors = [design[text] for text in places["prompt"]]
    groups = {(k, m): [i for i, f in enumerate(factors) if f == (k, m)] for k in KINDS for m in MAKES}
    rows: list[DesignContrast] = []
    means: list[DesignMean] = []
    for measure, cube in zip(BASIC, cubes_of(inside, *(m.column for m in BASIC)), strict=True):
        moved = [name for name in cube.methods if np.nanmax(np.abs(cube.method(name)), initial=0.0) > 0]
        for method, values in [("all", cube.over_methods()), *((name, cube.method(name)) for name in moved)]:
            subjects = [Group(np.flatnonzero(~np.isnan(values).all(axis=0)))]
            for (kind, make), members in groups.items():
                found = contrast(values, [Group(np.array(members))], subjects)
                means.append({"measure": measure.name, "method": method, "kind": kind, "make": make,
                              "estimate": found.as_dict()})  # fmt: skip
            for name, weights in CONTRASTS.items():
                weighed = [
                    Group(np.array(groups[kind, make]), weight)
                    for kind in KINDS
                    for make, weight in zip(MAKES, weights[kind], strict=True)
                ]
                found = contrast(values, weighed, subjects)
                rows.append({"measure": measure.name, "method": method, "contrast": name,
                             "estimate": found.tested()})  # fmt: skip
    return {"suite": SUITE, "cells": means, "contrasts": rows, "reading": reading(rows)}


def reading(rows: list[DesignContrast]) -> list[str]:
    """Return what the contrasts say about Property 2 of the paper, in plain sentences."""
    lines = []
    for row in rows:
        estimate = row["estimate"]
        value, low, high = estimate["value"], estimate["low"], estimate["high"]
        if row["method"] != "all" or value is None or low is None or high is None:
            continue
        interval = f"{value:+.4f}, {low:+.4f} to {high:+.4f}"
        sign = 1 if low > 0 else -1 if high < 0 else 0
        said = {
            "composition": ("compositions shift less: the claim fails", "composition makes no difference that is seen: "
                            "the claim is not supported", "compositions shift more, as the claim has it"),
            "abstractness": ("abstract prompts shift less", "abstract and concrete prompts are not told apart",
                             "abstract prompts shift more"),
            "interaction": ("composition raises abstract prompts less (or lowers them more) than concrete ones",
                            "no interaction is seen",
                            "composition raises abstract prompts more (or lowers them less) than concrete ones"),
        }[row["contrast"]][sign + 1]  # fmt: skip
        lines.append(f"{row['measure'].capitalize()}: {said} ({interval}).")
    return lines
