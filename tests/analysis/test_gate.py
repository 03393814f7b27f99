"""AuditLimits of an audit: how they are read, which cells count as shifted, and what passes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from raymap.analysis.decide.gate import judge, shifted
from raymap.analysis.decide.limits import AuditLimits, parse_limits
from raymap.analysis.read import read_map, read_noise
from raymap.analysis.reduce import reduce_run
from raymap.report.gate import flagged, junit, summary, verdicts
from raymap.testing.scores import write_scores


def test_limits_are_read() -> None:
    assert parse_limits("e_sem=0.03, prompts=3") == AuditLimits(e_sem=0.03, prompts=3)
    assert parse_limits("e_per=1e-2").given == {"e_per": 0.01}


def made_up(folder: Path, k: int, lpips: dict[int, float]) -> pl.DataFrame:
    """Reduce a run of twelve prompts and K seeds in which some prompts' LPIPS is not 0.1, and flag what shifted."""
    values = np.full((12, 1, k), 0.1)
    for prompt, value in lpips.items():
        values[prompt] = value + np.arange(k) / 1000
    write_scores(folder, np.zeros((12, 1, k)), values)
    reduce_run(folder)
    return flagged(folder)


def test_with_few_seeds_the_threshold_alone_says_what_shifted(tmp_path: Path) -> None:
    """Four seeds: the smallest p is 1/35, which twelve cells do not let pass; LPIPS between seeds is .50 to .51."""
    cells = made_up(tmp_path, 4, {1: 0.9, 2: 0.7, 3: 0.3})
    assert cells["tested_e_per"].any() is False
    assert set(cells.filter(pl.col("shifted_e_per"))["prompt_id"]) == {"p001", "p002"}
    assert cells["shifted_e_sem"].any() is False


def test_with_enough_seeds_the_test_must_agree(tmp_path: Path) -> None:
    """Ten seeds: the smallest p is 1/286. A mean above τ that one seed alone brings about is no shift."""
    folder = tmp_path / "run"
    values = np.full((12, 1, 10), 0.1)
    values[1] = 0.9 + np.arange(10) / 1000
    values[2, 0, 0] = 9.0
    write_scores(folder, np.zeros((12, 1, 10)), values)
    reduce_run(folder)
    cells = flagged(folder)
    assert cells["tested_e_per"].all() is True
    above = cells.filter(pl.col("above_tau_per"))["prompt_id"].to_list()
    assert above == ["p001", "p002"]
    assert cells.filter(pl.col("shifted_e_per"))["prompt_id"].to_list() == ["p001"]


def test_target_prompts_and_controls_do_not_count(tmp_path: Path) -> None:
    shift, lpips = np.zeros((12, 2, 4)), np.full((12, 2, 4), 0.9)
    write_scores(tmp_path, shift, lpips, adapters=("face", "other"), subject_categories=("face", "unknown"))
    statistics = reduce_run(tmp_path)
    found = verdicts(flagged(tmp_path), statistics, AuditLimits(prompts=10))
    assert [(v.adapter, v.value, v.of, v.passed) for v in found] == [("face", 10, 10, True), ("other", 12, 12, False)]
    assert {o.shifted_in for o in found[1].offenders} == {("e_per",)}


def test_where_nothing_was_measured_no_limit_is_kept(tmp_path: Path) -> None:
    """An adapter with target prompts only cannot pass by default."""
    shift, lpips = np.zeros((1, 1, 4)), np.full((1, 1, 4), 0.9)
    write_scores(tmp_path, shift, lpips, subject_categories=("face",))
    statistics = reduce_run(tmp_path)
    cells = shifted(read_map(tmp_path), pl.read_ipc((tmp_path / "shifts.arrow").read_bytes()), read_noise(tmp_path))
    found = judge(cells, statistics["adapters"], AuditLimits(e_sem=1, e_per=1, prompts=5))
    assert [(v.value, v.passed) for v in found] == [(None, False)] * 3
    assert b"no non-target prompt was measured" in junit(found, "x")
    assert json.loads(summary(cells, statistics, AuditLimits(e_sem=1), found))["passed"] is False
