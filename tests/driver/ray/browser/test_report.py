"""The report of a real run opens in a real browser: verdict, map and pairs, no complaint, nothing fetched."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
from playwright.sync_api import Browser

from raymap.report.page import render
from tests.browser import opened
from tests.driver.ray.report_source import copied


def test_the_report_of_a_real_run_shows_map_and_pairs_without_a_complaint(finished: Path, chromium: Browser) -> None:
    with opened(chromium, finished / "report" / "index.html") as seen:
        cells = pl.read_ipc(finished / "map.arrow")
        assert seen.page.locator("#grid td").count() == cells.height
        assert seen.page.locator("#grid td.n").count() == 0
        colours = seen.page.locator("#grid td").evaluate_all("all => all.map(c => getComputedStyle(c).backgroundColor)")
        assert len(set(colours)) > 3
        images = seen.page.locator(".pairs img")
        assert images.count() >= 10
        assert images.evaluate_all("all => all.every(i => i.complete && i.naturalWidth === 64)")
        assert seen.page.get_by_text("The identity control is exactly zero in all 7 cells.").is_visible()
        assert seen.page.get_by_text("Two seeds give a single pair").is_visible()
        assert seen.page.get_by_text("torch 2.").is_visible()
        assert [url for url in seen.asked if not url.startswith("data:")] == []
        assert seen.complaints == []


def test_a_control_that_is_not_zero_is_said_first(finished: Path, tmp_path: Path, chromium: Browser) -> None:
    root = copied(finished, tmp_path)
    statistics = json.loads((finished / "statistics.json").read_text())
    statistics["identity_control"] |= {"exact": False, "max_e_sem": 0.25}
    (root / "statistics.json").write_text(json.dumps(statistics))
    with opened(chromium, render(root)) as seen:
        first = seen.page.locator("main > *").first
        assert "identity control is not zero" in first.inner_text()
        assert "0.25" in first.inner_text()
