"""Ragged input: each statistic comes with its n, or with a named reason why not; no traceback, no numpy warning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from raymap.analysis.read import read_map
from raymap.analysis.reduce import reduce_run
from raymap.cli.summary import print_summary
from raymap.report.against import against_paper
from raymap.report.page import render
from raymap.store.folder import arrow_bytes
from raymap.store.schema import NOISE, stamped
from tests.analysis.samples import control, sample, write

ONE = pl.col("adapter") == "face-0-lora"
FIRST = pl.col("prompt_id") == "p001"
NAN = pl.lit(float("nan"), pl.Float32)


def blank(where: pl.Expr, column: str = "lpips") -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda scores: scores.with_columns(pl.when(where).then(NAN).otherwise(pl.col(column)).alias(column))


RAGGED: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "whole": lambda scores: scores,
    "identity control": control,
    "only controls": lambda scores: control(scores).filter(pl.col("method") == "identity"),
    "missing seeds": lambda scores: scores.filter(~(ONE & FIRST & (pl.col("seed") > 0))),
    "a seed of one method only": lambda scores: scores.filter(~((pl.col("method") == "lora") & (pl.col("seed") == 3))),
    "one subject": lambda scores: scores.filter(pl.col("subject") == "face-0"),
    "one adapter": lambda scores: scores.filter(ONE),
    "two adapters": lambda scores: scores.filter(pl.col("subject") == "face-0", pl.col("method") != "lora"),
    "one seed": lambda scores: scores.filter(pl.col("seed") == 0),
    "two seeds": lambda scores: scores.filter(pl.col("seed") < 2),
    "constant": lambda scores: scores.with_columns(clip_adapted=pl.col("clip_base"), lpips=pl.lit(0.0, pl.Float32)),
    "all columns constant": lambda scores: scores.with_columns(
        pl.lit(0.5, pl.Float32).alias(c) for c in ("clip_base", "clip_adapted", "lpips")
    ),
    "a constant lpips": lambda scores: scores.with_columns(lpips=pl.lit(0.25, pl.Float32)),
    "missing cells": lambda scores: scores.filter(~(ONE & pl.col("prompt_id").is_in(["p001", "p002"]))),
    "a missing row of cells": lambda scores: scores.filter(ONE | ~FIRST),
    "nan rows": blank(ONE & FIRST & (pl.col("seed") < 2)),
    "an all-null adapter": blank(ONE, "clip_adapted"),
    "an all-null prompt": blank(FIRST, "clip_base"),
    "all null": blank(pl.lit(True)),
    "infinite cosines": lambda scores: scores.with_columns(
        clip_adapted=pl.when(ONE).then(pl.lit(float("inf"), pl.Float32)).otherwise(pl.col("clip_adapted"))
    ),
    "one prompt": lambda scores: scores.filter(FIRST),
    "one cell": lambda scores: scores.filter(ONE & FIRST),
    "one row": lambda scores: scores.filter(ONE & FIRST & (pl.col("seed") == 0)),
    "only target prompts": lambda scores: scores.filter(
        pl.col("subject") == "face-0", pl.col("prompt_category") == "people"
    ),
    "a prompt with target cells only": lambda scores: scores.filter(
        (pl.col("prompt_id") != "p000") | (pl.col("subject_category") == "face")
    ),
    "unknown categories": lambda scores: scores.with_columns(
        subject_category=pl.lit("unknown"), prompt_category=pl.lit("people")
    ),
}


def entries(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of a statistics tree with its path."""
    if isinstance(value, dict):
        yield path, value
        for key, part in value.items():
            yield from entries(part, f"{path}/{key}")
    elif isinstance(value, list):
        for k, part in enumerate(value):
            yield from entries(part, f"{path}[{k}]")


def with_noise(folder: Path, noise: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(noise, stamped(NOISE, "digest"))
    (folder / "noise.arrow").write_bytes(arrow_bytes(table))
    return folder


def check(statistics: Any) -> None:
    json.dumps(statistics, allow_nan=False)
    for path, entry in entries(statistics):
        if "value" in entry:
            assert entry["n"] is not None, path
            for key in ("value", "low", "high"):
                assert entry[key] is not None or entry["reason"], (path, key)
        elif "reason" in entry and entry["reason"] is None:
            assert all(v is not None for k, v in entry.items() if k in NEEDED), (path, entry)
    for entry in statistics["hypotheses"]:
        assert entry["p"] is not None or entry["reason"], entry
    assert statistics["identity_control"]["consequence"]
    assert len(statistics["power"]["claims"]) == 5


NEEDED = ("detectable", "seeds_needed", "kendall", "spearman", "median", "shifted_sem", "shifted_per",
          "shifted_signed", "rho")  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ragged", RAGGED)
def test_every_statistic_has_its_n_or_a_reason(tmp_path: Path, ragged: str) -> None:
    folder = write(tmp_path, RAGGED[ragged](sample(prompts=12)))
    statistics = reduce_run(folder)
    check(statistics)
    cells = read_map(folder)
    short = cells.filter(pl.col("n_seeds") < cells["n_seeds"].max())
    assert sum(entry["cells"] for entry in statistics["incomplete"]) == short.height
    against_paper(statistics, {})
    print_summary(statistics)
    render(folder)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pairs", ["none", "not finite", "one a prompt", "of one prompt", "constant"])
def test_a_ragged_noise_floor_leaves_no_silent_number(tmp_path: Path, pairs: str) -> None:
    folder = write(tmp_path, sample(prompts=12))
    rows = pl.read_ipc((folder / "noise.arrow").read_bytes())
    if pairs == "none":
        rows = rows.clear()
    elif pairs == "not finite":
        rows = rows.with_columns(e_sem=NAN, e_per=NAN)
    elif pairs == "one a prompt":
        rows = rows.filter(pl.col("seed_a") == 0)
    elif pairs == "of one prompt":
        rows = rows.filter(FIRST)
    else:
        rows = rows.with_columns(e_sem=pl.lit(0.01, pl.Float32), e_per=pl.lit(0.5, pl.Float32))
    statistics = reduce_run(with_noise(folder, rows.to_dicts()))
    check(statistics)
    floor = statistics["noise_floor"]
    if pairs in ("none", "not finite"):
        assert floor["reason"]
        assert floor["tau_sem"] is None
        assert floor["matched"]["e_sem"]["reason"]
        assert {a["above_tau_sem"] for a in statistics["adapters"]} == {None}
        assert all(claim["seeds_needed"] is None for claim in statistics["power"]["claims"])
    elif pairs == "one a prompt":
        assert "single" in (floor["matched"]["e_sem"]["reason"] or "")
        assert {a["above_matched_sem"] for a in statistics["adapters"]} == {None}
        assert all(isinstance(a["above_tau_sem"], int) for a in statistics["adapters"])
    else:
        assert floor["matched"]["e_sem"]["prompts"] == (1 if pairs == "of one prompt" else 12)
