"""The page's data: what its script draws the map and the pairs from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from raymap.analysis.map import CONTROL
from raymap.analysis.read import KEY
from raymap.analysis.shifts import TESTS
from raymap.analysis.tables import ORDER
from raymap.report.ordering import cluster_order, standardized
from raymap.report.pictures import GAIN
from raymap.report.source import Run
from raymap.report.thumbnails import Gallery
from raymap.study.suite import CATEGORIES

DIGITS = 4
MEASURES = {"e_sem": "e_sem", "signed": "e_sem_signed", "e_per": "e_per", "e": "entanglement"}


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a <script> element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def payload(run: Run, shown: Gallery) -> dict[str, Any]:
    """Return prompts, adapters and, prompt by prompt, one value a cell of each column (null where there is none).

    Cells lie row by row: cell (prompt p, adapter a) is number p · adapters + a. Numbers have four significant digits.
    """
    grid, prompts, adapters = _grid(run)
    pairs = grid.select(*KEY, "number").join(shown.pairs.drop("entanglement", "e_per"), on=KEY).sort("number")
    floor = run.statistics["noise_floor"]
    return {
        "prompts": prompts.select("prompt_id", "prompt", "prompt_category").rows(),
        "adapters": adapters.select("adapter", "method", "subject", "subject_category").rows(),
        "categories": [c for c in CATEGORIES if c in set(prompts["prompt_category"])],
        "control": CONTROL,
        "cells": {
            **{name: _numbers(grid[column]) for name, column in MEASURES.items()},
            **{f"q_{name}": _numbers(grid[f"q_{name}"]) for name in TESTS},
            "seeds": grid["n_seeds"].to_list(),
            "target": grid["target"].cast(pl.Int8).to_list(),
        },
        "cluster": _clusters(grid, len(prompts), len(adapters)),
        "tau": {name: (floor[f"tau_{name}"] or {}).get("value") for name in ("sem", "per")},
        "pairs": {
            "cell": pairs["number"].to_list(),
            "seed": pairs["seed"].to_list(),
            "base": pairs["base"].to_list(),
            "adapted": pairs["adapted"].to_list(),
            "drawn": pairs["drawn"].cast(pl.Int8).to_list(),
            "clip_base": _numbers(pairs["clip_base"]),
            "clip_adapted": _numbers(pairs["clip_adapted"]),
            "lpips": _numbers(pairs["lpips"]),
        },
        "gain": GAIN,
    }


def _grid(run: Run) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return every (prompt, adapter) in order, numbered, with its cell's columns; prompts; adapters, controls last."""
    order = {category: k for k, category in enumerate(CATEGORIES)}
    prompts = (
        run.cells.select("prompt_id", "prompt", "prompt_category")
        .unique()
        .sort(pl.col("prompt_category").replace_strict(order, default=len(order)), "prompt_id")
    )
    methods = {method: k for k, method in enumerate(ORDER)}
    adapters = (
        run.cells.select("adapter", "method", "subject", "subject_category")
        .unique()
        .sort(
            pl.col("method") == CONTROL,
            "subject_category",
            pl.col("method").replace_strict(methods, default=len(methods)),
            "subject",
            "adapter",
        )
    )
    columns = run.cells.select(*KEY, *MEASURES.values(), *(f"q_{name}" for name in TESTS), "n_seeds", "target")
    crossed = prompts.select("prompt_id").join(adapters.select("adapter"), how="cross").with_row_index("number")
    grid = crossed.join(columns, on=KEY, how="left", maintain_order="left")
    return grid.with_columns(pl.col("n_seeds").fill_null(0), pl.col("target").fill_null(False)), prompts, adapters


def _numbers(column: pl.Series) -> list[float | None]:
    return column.cast(pl.Float64).fill_nan(None).round_sig_figs(DIGITS).to_list()


def _clusters(grid: pl.DataFrame, prompts: int, adapters: int) -> dict[str, list[int]]:
    """Return positions of prompts and adapters in the leaf order of E_sem and E_per, both scaled by their spread."""
    sem, per = (
        standardized(grid[name].cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(prompts, adapters))
        for name in ("e_sem", "e_per")
    )
    return {
        "prompts": cluster_order(np.hstack([sem, per])),
        "adapters": cluster_order(np.vstack([sem, per]).T),
    }
