"""A package adds a figure without a change to raymap: it is on the page, in the exported files and in CSV."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import Browser

from raymap.analysis.reduce import reduce_run
from raymap.report.export.write import export
from raymap.report.figures import figures
from raymap.report.page import render
from raymap.results import read_run
from raymap.testing.runs import SyntheticRun, write_run
from tests.browser import opened
from tests.report.added_figure import LIKELY, installed
from tests.report.invented import ADAPTERS, PROMPTS


def test_a_package_adds_a_figure_to_the_page_the_files_and_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    root = write_run(tmp_path / "run", SyntheticRun(ADAPTERS, PROMPTS, seeds=4, side=16))
    reduce_run(root)
    installed(tmp_path / "site", monkeypatch, LIKELY, "by_prompts = figure_by_prompts:FIGURE")
    run = read_run(root)
    assert [figure.key for figure in figures()] == ["figure_1", "figure_2", "figure_3", "by_prompts"]
    written = {path.name: path for path in export(run, ("png", "svg", "pdf", "csv"))}
    with Image.open(written["by_prompts.png"]) as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert ElementTree.parse(written["by_prompts.svg"]).getroot().tag.endswith("svg")
    assert written["by_prompts.pdf"].read_bytes().startswith(b"%PDF")
    table = pl.read_csv(written["by_prompts.csv"])
    means = run.others.group_by("prompt_category").agg(pl.col("e_sem").mean())
    assert dict(table.iter_rows()) == pytest.approx(dict(means.iter_rows()))
    with opened(chromium, render(root), color_scheme="dark") as seen:
        figure = seen.page.locator("figure.drawing", has_text="Figure 4. Mean E_sem by prompt category.")
        assert figure.locator("svg").is_visible()
        tips = figure.locator("svg title").evaluate_all("all => all.map(t => t.textContent)")
        assert tips == [f"{category} & <b>others</b>" for category in table["prompt_category"]]
        assert "mean\u00a0Esem" in figure.locator("svg").evaluate("s => s.textContent")
        ink = seen.page.evaluate("getComputedStyle(document.body).color")
        assert figure.locator("svg .tip path").first.evaluate("p => getComputedStyle(p).fill") == ink
        assert seen.complaints == []
