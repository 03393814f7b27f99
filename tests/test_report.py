"""The report opens in a real browser: no console error, heatmap and pairs to see, nothing fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Page, sync_playwright

from raymap.report.page import render, shade

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"],
        )
        yield browser.new_page()
        browser.close()


@needs_browser
def test_the_report_shows_heatmap_and_pairs_without_an_error(finished: Path, page: Page) -> None:
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((finished / "report" / "index.html").as_uri())
    cells = pl.read_ipc(finished / "map.arrow")
    assert page.locator("#heatmap-e_sem td").count() == cells.height
    colors = page.locator("#heatmap-e_sem td").evaluate_all("all => all.map(c => getComputedStyle(c).backgroundColor)")
    assert len(set(colors)) > 3
    images = page.locator(".pairs img")
    assert images.count() >= 10
    assert images.evaluate_all("all => all.every(i => i.complete && i.naturalWidth === 64)")
    assert page.get_by_text("The identity control is exactly zero").is_visible()
    assert [u for u in requests if not u.startswith(("file:", "data:"))] == []
    assert errors == []


@needs_browser
def test_a_control_that_is_not_zero_is_said_first(finished: Path, page: Page, tmp_path: Path) -> None:
    for name in ("map.arrow", "run.json"):
        shutil.copy(finished / name, tmp_path)
    statistics = json.loads((finished / "statistics.json").read_text())
    statistics["identity_control"] |= {"exact": False, "max_e_sem": 0.25}
    (tmp_path / "statistics.json").write_text(json.dumps(statistics))
    page.goto(render(tmp_path).as_uri())
    first = page.locator("main > *").first
    assert "identity control is not zero" in first.inner_text()
    assert "0.25" in first.inner_text()


def test_prompts_are_escaped(finished: Path, tmp_path: Path) -> None:
    for name in ("run.json", "statistics.json"):
        shutil.copy(finished / name, tmp_path)
    hostile = pl.lit("<script>alert(1)</script>").alias("prompt")
    pl.read_ipc(finished / "map.arrow").with_columns(hostile).write_ipc(
        tmp_path / "map.arrow", compression="uncompressed"
    )
    assert "<script>alert" not in render(tmp_path).read_text()


def test_shades_run_from_dark_to_light() -> None:
    assert shade(0.0, 1.0) == shade(0.3, 0.0) == ("rgb(0,0,4)", "#fff")
    assert shade(1.0, 1.0) == shade(7.0, 1.0) == ("rgb(252,253,191)", "#000")
