"""The page's data: what its script draws the map and the pairs from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from raymap.analysis.measures import ALL, BASIC, Measure
from raymap.analysis.read import KEY
from raymap.report import judged
from raymap.report.images import GAIN
from raymap.report.ordering import cluster_order, standardized
from raymap.report.thumbnails import Gallery
from raymap.results import Run
from raymap.study.methods.method import CONTROL
from raymap.study.methods.registry import METHODS
from raymap.study.suite import CATEGORIES

WAYS = ("fell", "rose", "image")
DIGITS = 4
"""Significant digits of numbers in the page."""


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a <script> element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def payload(run: Run, gallery: Gallery) -> dict[str, Any]:
    """Return what the page's script reads.

    `cells` holds one list per column, with one value per cell (null if there is none), prompt by prompt: the cell of
    prompt p and adapter a is number p · adapters + a. `measures` are the entries of the map's menu, the run's own and
    those of further judges; their values are in `cells.values`, their thresholds in `tau`, by their names.
    """
    measures = (*ALL, *judged.measures(run))
    grid, prompts, adapters = _grid(run, measures)
    pairs = grid.select(*KEY, "number").join(gallery.pairs.drop("entanglement", "e_per"), on=KEY).sort("number")
    return {
        "prompts": prompts.select("prompt_id", "prompt", "prompt_category").rows(),
        "adapters": adapters.select("adapter", "method", "subject", "subject_category").rows(),
        "categories": [c for c in CATEGORIES if c in set(prompts["prompt_category"])],
        "control": CONTROL,
        "measures": [
            {"name": m.name, "label": m.label, "says": m.says, "digits": m.digits, "any_scale": m.any_scale,
             "better": m.better, "tests": m.tests, "floors": m.floors}
            for m in measures
        ],
        "cells": {
            "values": {m.name: _numbers(grid[m.column]) for m in measures},
            "answer": grid["answer"].to_list(),
            "ways": {way: grid[way].cast(pl.Int8).to_list() for way in WAYS},
            "seeds": grid["n_seeds"].to_list(),
            "target": grid["target"].cast(pl.Int8).to_list(),
        },
        "tau": {m.name: run.threshold(m) for m in BASIC} | judged.floors(run),
        "cluster": _clusters(grid, len(prompts), len(adapters)),
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
    }  # fmt: skip


def _grid(run: Run, measures: Sequence[Measure]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return all prompts × adapters, numbered, with their cells; then the prompts; then the adapters, controls last."""
    order = {category: k for k, category in enumerate(CATEGORIES)}
    prompts = (
        run.cells.select("prompt_id", "prompt", "prompt_category")
        .unique()
        .sort(pl.col("prompt_category").replace_strict(order, default=len(order)), "prompt_id")
    )
    methods = {method: k for k, method in enumerate(METHODS)}
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
    shown = (*(m.column for m in measures), "answer", *WAYS)
    columns = run.cells.join(judged.columns(run), on=KEY, how="left").select(*KEY, *shown, "n_seeds", "target")
    crossed = prompts.select("prompt_id").join(adapters.select("adapter"), how="cross").with_row_index("number")
    grid = crossed.join(columns, on=KEY, how="left", maintain_order="left")
    return grid.with_columns(pl.col("n_seeds").fill_null(0), pl.col("target").fill_null(False)), prompts, adapters


def _numbers(column: pl.Series) -> list[float | None]:
    return column.cast(pl.Float64).fill_nan(None).round_sig_figs(DIGITS).to_list()


def _clusters(grid: pl.DataFrame, prompts: int, adapters: int) -> dict[str, list[int]]:
    """Return prompts and adapters in the order of their clusters by E_sem and E_per, each scaled by its spread."""
    sem, per = (
        standardized(grid[m.column].cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(prompts, adapters))
        for m in BASIC
    )
    return {
        "prompts": cluster_order(np.hstack([sem, per])),
        "adapters": cluster_order(np.vstack([sem, per]).T),
    }
