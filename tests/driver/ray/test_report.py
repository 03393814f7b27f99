"""A report is rendered from a run of a later version of raymap, too."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from raymap.report.page import render
from tests.driver.ray.report_source import copied


def test_keys_and_columns_that_are_not_known_yet_do_no_harm(finished: Path, tmp_path: Path) -> None:
    root = copied(finished, tmp_path)
    plain = render(root).read_text()
    statistics = json.loads((root / "statistics.json").read_text())
    (root / "statistics.json").write_text(json.dumps(statistics | {"later": {"n": 1}, "also": [1, 2]}))
    pl.read_ipc(root / "shifts.arrow").with_columns(tau_sem=pl.lit(0.1)).write_ipc(root / "shifts.arrow")
    assert render(root).read_text() == plain
