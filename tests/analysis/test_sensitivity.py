"""E under four ranges, and how far the adapters' orders agree."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from raymap.analysis.map import measured, with_entanglement
from raymap.analysis.read import read_map
from raymap.analysis.reduce import reduce_run
from raymap.analysis.sensitivity import sensitivity
from tests.analysis.samples import sample, write


def scaled(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((x - low) / (high - low), 0, 1) if high > low else np.zeros_like(x)


def test_every_range_is_recomputed_and_the_orders_are_compared_by_ranks(tmp_path: Path) -> None:
    folder = write(tmp_path, sample())
    statistics: Any = reduce_run(folder)
    cells = measured(read_map(folder))
    values = {name: cells[name].to_numpy() for name in ("e_sem", "e_per")}
    expected = {name: np.zeros(cells.height) for name in ("map", "robust", "method", "prompt_category")}
    for x in values.values():
        expected["map"] += scaled(x, x.min(), x.max()) / 2
        expected["robust"] += scaled(x, *np.quantile(x, (0.01, 0.99))) / 2
        for column in ("method", "prompt_category"):
            for name in cells[column].unique():
                at = (cells[column] == name).to_numpy()
                expected[column][at] += scaled(x[at], x[at].min(), x[at].max()) / 2
    rows = {row["adapter"]: row for row in statistics["sensitivity"]["adapters"]}
    for adapter, row in rows.items():
        at = ((cells["adapter"] == adapter) & ~cells["target"]).to_numpy()
        assert row["n"] == at.sum()
        for name, held in expected.items():
            assert row[name] == pytest.approx(held[at].mean(), rel=1e-9, abs=1e-15)
    assert {a["adapter"]: a["e"]["value"] for a in statistics["adapters"]} == {
        adapter: pytest.approx(row["map"], rel=1e-12) for adapter, row in rows.items()
    }
    for order in statistics["sensitivity"]["orders"]:
        both = [[row[name] for row in rows.values()] for name in ("map", order["range"])]
        couples = itertools.combinations(zip(*both, strict=True), 2)
        signs = [(np.sign(a[0] - b[0]), np.sign(a[1] - b[1])) for a, b in couples]
        agree = sum(a * b for a, b in signs)
        tau_b = agree / np.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs))
        assert order["kendall"] == pytest.approx(tau_b)
        ranks = [stats.rankdata(held) for held in both]
        assert order["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_one_extreme_cell_moves_the_default_and_not_the_robust_range(tmp_path: Path) -> None:
    reduce_run(write(tmp_path, sample(prompts=36)))
    cells = with_entanglement(measured(read_map(tmp_path)))
    extreme = cells.with_columns(e_sem=pl.when(pl.int_range(pl.len()) == 3).then(10.0).otherwise("e_sem"))
    one, other = (sensitivity(frame)["adapters"] for frame in (cells, extreme))
    mean = [[np.mean([row[name] for row in rows]) for rows in (one, other)] for name in ("map", "robust")]
    assert mean[0][1] < 0.75 * mean[0][0]
    assert mean[1][1] == pytest.approx(mean[1][0], rel=0.05)


def test_an_adapters_interval_is_students_over_its_prompts(tmp_path: Path) -> None:
    statistics: Any = reduce_run(write(tmp_path, sample()))
    cells = with_entanglement(measured(read_map(tmp_path)))
    for adapter in statistics["adapters"]:
        if adapter["method"] == "textual_inversion":
            continue
        own = cells.filter(pl.col("adapter") == adapter["adapter"])
        for part, held in ((own.filter(~pl.col("target")), adapter), (own.filter("target"), adapter["target"])):
            for name, column in (("e_sem", "e_sem"), ("e_per", "e_per"), ("e", "entanglement")):
                interval = stats.ttest_1samp(part[column].to_numpy(), 0).confidence_interval(0.95)
                assert (held[name]["low"], held[name]["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
                assert (held[name]["n"], "one adapter" in held[name]["method"]) == (part.height, True)


def test_a_prompts_interval_is_students_over_its_subjects(tmp_path: Path) -> None:
    statistics: Any = reduce_run(write(tmp_path, sample()))
    cells = measured(read_map(tmp_path)).filter(~pl.col("target"), pl.col("method") != "textual_inversion")
    for row in statistics["most_fragile"]:
        own = cells.filter(pl.col("prompt_id") == row["prompt_id"]).group_by("subject").agg(pl.col("e_sem").mean())
        interval = stats.ttest_1samp(own["e_sem"].to_numpy(), 0).confidence_interval(0.95)
        held = row["estimate"]["e_sem"]
        assert (held["low"], held["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
        assert row["subjects"] == own.height
