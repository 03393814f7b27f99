"""The map as an array has a place for every adapter, whatever its subject is called."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from raymap.analysis.cube import cubes_of, moving
from raymap.analysis.read import read_map
from raymap.analysis.reduce import reduce_run
from tests.analysis.samples import sample, write


def test_two_adapters_of_one_subject_and_method_both_count(tmp_path: Path) -> None:
    scores = sample()
    names = scores.filter(pl.col("method") == "lora")["adapter"].unique().sort()[:2].to_list()
    same = {"subject": pl.lit("dog"), "subject_category": pl.lit("object")}
    chosen = pl.col("adapter").is_in(names)
    scores = scores.with_columns(
        pl.when(chosen).then(value).otherwise(pl.col(name)).alias(name) for name, value in same.items()
    )
    statistics = reduce_run(write(tmp_path, scores))
    (row,) = (r for r in statistics["table_1"] if (r["method"], r["subject_category"]) == ("lora", "object"))
    cells = read_map(tmp_path).filter(
        pl.col("method") == "lora", pl.col("subject_category") == "object", ~pl.col("target")
    )
    assert set(names) <= set(cells["adapter"])
    assert row["subjects"] == cells["adapter"].n_unique()
    by_adapter = cells.group_by("adapter").agg(pl.col("e_sem").mean())
    assert row["e_sem"]["value"] == pytest.approx(by_adapter["e_sem"].mean())


def test_a_subject_of_two_categories_has_statistics(tmp_path: Path) -> None:
    scores = sample()
    first, second = scores.filter(pl.col("method") == "lora")["adapter"].unique().sort()[:2].to_list()
    category = (
        pl.when(pl.col("adapter") == first).then(pl.lit("object"))
        .when(pl.col("adapter") == second).then(pl.lit("unknown"))
        .otherwise(pl.col("subject_category"))
    )  # fmt: skip
    subject = pl.when(pl.col("adapter").is_in([first, second])).then(pl.lit("dog")).otherwise(pl.col("subject"))
    statistics = reduce_run(write(tmp_path, scores.with_columns(subject=subject, subject_category=category)))
    assert {"object", "unknown"} <= {row["subject_category"] for row in statistics["table_1"]}


def test_means_over_methods_are_over_those_that_draw() -> None:
    """A proved zero is not a measurement; a subject of which nothing moves keeps its zeros."""
    cells = pl.DataFrame(
        {
            "prompt_id": ["p0"] * 3, "prompt_category": ["people"] * 3, "subject_category": ["face"] * 3,
            "adapter": ["a-ti", "a-lora", "b-ti"], "method": ["textual_inversion", "lora", "textual_inversion"],
            "subject": ["a", "a", "b"], "e_sem": [0.0, 0.06, 0.0],
        }
    )  # fmt: skip
    assert cubes_of(moving(cells), "e_sem")[0].over_methods().tolist() == [[0.06, 0.0]]
    assert cubes_of(cells, "e_sem")[0].over_methods().tolist() == [[0.03, 0.0]]
