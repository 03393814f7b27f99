"""Is composition fragile, or abstractness? A 2 × 2 test of the paper's Property 2, which it can fail.

The paper compares abstract with concrete prompts and concludes that compositional grounding is fragile. Its abstract
prompts are compositions as well. Here both vary apart: concrete or abstract × simple or compositional.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from raymap.analysis.cube import cubes_of
from raymap.analysis.map import measured
from raymap.analysis.measures import BASIC
from raymap.analysis.numerics.crossed import Group, contrast
from raymap.analysis.read import read_map
from raymap.errors import InputError
from raymap.store.files import write_atomically
from raymap.store.folder import as_json
from raymap.study.suite import SUITES

SUITE = "embedded-factorial"
KINDS = ("concrete", "abstract")
MAKES = ("simple", "compositional")
CONTRASTS = {
    "composition": {"concrete": (-0.5, 0.5), "abstract": (-0.5, 0.5)},
    "abstractness": {"concrete": (-0.5, -0.5), "abstract": (0.5, 0.5)},
    "interaction": {"concrete": (1.0, -1.0), "abstract": (-1.0, 1.0)},
}
"""Weights of the cell means, simple and compositional: main effects, and how much more composition does to abstract."""

Design = dict[str, tuple[str, str]]
"""Prompt -> (kind, make)."""


def read_design(path: Path = SUITES / f"{SUITE}.yaml") -> Design:
    """Return the design that a suite's file states beside its prompts."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {entry["prompt"]: (entry["kind"], entry["make"]) for entry in entries}


def reduce_factorial(folder: Path) -> dict[str, Any]:
    """Write factorial.json from a run folder's map; return it.

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


def factorial(cells: pl.DataFrame, design: Design) -> dict[str, Any]:
    """Estimate main effects and interaction, prompts and subjects both random.

    Args:
        cells: the map without controls (schema MAP); prompts outside the design don't count.
    """
    inside = cells.filter(pl.col("prompt").is_in(list(design)))
    places = inside.select("prompt_id", "prompt").unique().sort("prompt_id")
    factors = [design[text] for text in places["prompt"]]
    groups = {(k, m): [i for i, f in enumerate(factors) if f == (k, m)] for k in KINDS for m in MAKES}
    rows: list[dict[str, Any]] = []
    means: list[dict[str, Any]] = []
    for measure, cube in zip(BASIC, cubes_of(inside, *(m.column for m in BASIC)), strict=True):
        moved = [name for name in cube.methods if np.nanmax(np.abs(cube.method(name)), initial=0.0) > 0]
        for method, values in [("all", cube.over_methods()), *((name, cube.method(name)) for name in moved)]:
            subjects = [Group(np.flatnonzero(~np.isnan(values).all(axis=0)))]
            key = {"measure": measure.name, "method": method}
            for (kind, make), members in groups.items():
                found = contrast(values, [Group(np.array(members))], subjects)
                means.append(key | {"kind": kind, "make": make, "estimate": found.as_dict()})
            for name, weights in CONTRASTS.items():
                weighed = [
                    Group(np.array(groups[kind, make]), weight)
                    for kind in KINDS
                    for make, weight in zip(MAKES, weights[kind], strict=True)
                ]
                found = contrast(values, weighed, subjects)
                rows.append(key | {"contrast": name, "estimate": found.as_dict() | {"p": found.p}})
    return {"suite": SUITE, "cells": means, "contrasts": rows, "reading": reading(rows)}


def reading(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the contrasts say of Property 2 of the paper, in plain sentences."""
    lines = []
    for row in rows:
        value, low, high = (row["estimate"][key] for key in ("value", "low", "high"))
        if row["method"] != "all" or low is None:
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
