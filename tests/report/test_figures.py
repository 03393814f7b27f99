"""Figures come from one list: a package adds one to the page, the exported files and CSV; the page draws its own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import Browser

from raymap.analysis.reduce import reduce_run
from raymap.errors import InputError
from raymap.report.export.write import export
from raymap.report.figures import figures
from raymap.report.page import page, render
from raymap.results import read_run
from raymap.testing.runs import Invented, write_run
from tests.browser import needs_browser, opened
from tests.report.test_files import ADAPTERS, PROMPTS

LIKELY = '''
"""How often each number of prompts shifts: a figure that raymap does not have."""

import polars as pl
from matplotlib.figure import Figure as Drawing

from raymap.report.figures import Figure, FigureData, tip


def data(run):
    means = run.others.group_by("prompt_category").agg(pl.col("e_sem").mean()).sort("prompt_category")
    return FigureData(means, {"e_sem": 0.01})


def draw(shown):
    drawing = Drawing(figsize=(4, 3))
    axes = drawing.add_subplot()
    for row in shown.frame.iter_rows(named=True):
        (bar,) = axes.barh(row["prompt_category"], row["e_sem"], color="black")
        tip(bar, f"{row['prompt_category']} & <b>others</b>")
    axes.axvline(shown.thresholds["e_sem"])
    axes.set_xlabel("mean $E_{sem}$")
    return drawing


FIGURE = Figure("by_prompts", "Figure 4. Mean E_sem by prompt category.", data, draw)
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run"), Invented(ADAPTERS, PROMPTS, seeds=4, side=16))
    reduce_run(folder)
    return folder


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, entry: str) -> None:
    """Install a package of one module, with an entry point, into a folder that Python looks in."""
    about = folder / "by_prompts-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: by-prompts\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[raymap.figures]\n{entry}\n")
    (folder / "figure_by_prompts.py").write_text(module)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(__import__("sys").modules, "figure_by_prompts", raising=False)


@needs_browser
def test_a_package_adds_a_figure_to_the_page_the_files_and_the_numbers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    installed(tmp_path, monkeypatch, LIKELY, "by_prompts = figure_by_prompts:FIGURE")
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


@pytest.mark.parametrize(
    ("module", "entry", "problem"),
    [
        ("raise RuntimeError('no licence')", "broken = figure_by_prompts:FIGURE", "no licence"),
        ("FIGURE = 1", "number = figure_by_prompts:FIGURE", "with a key of its own"),
        (LIKELY.replace('"by_prompts"', '"figure_1"'), "again = figure_by_prompts:FIGURE", "with a key of its own"),
        (LIKELY.replace('"by_prompts"', '"../by_prompts"'), "out = figure_by_prompts:FIGURE", "with a key of its own"),
    ],
)
def test_a_figure_that_is_none_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, entry: str, problem: str
) -> None:
    installed(tmp_path, monkeypatch, module, entry)
    with pytest.raises(InputError, match=re.escape(problem)) as raised:
        figures()
    assert f"figure {entry.split()[0]} of the package by-prompts" in str(raised.value)


def test_figure_1_on_the_page_holds_the_numbers_of_its_file(root: Path) -> None:
    run = read_run(root)
    export(run, ("csv",))
    table = pl.read_csv(root / "report" / "figure_1.csv")
    svg = re.search(r"<svg .*?</svg>", page(run).replace("\n", " "))
    assert svg is not None
    tips = re.findall(r"<title>(.*?)</title>", svg[0])
    said = [f"{a}: E_sem {s:.4f}, E_per {p:.3f}, {r}" for a, _, _, s, p, r in table.iter_rows()]
    assert sorted(tips) == sorted(said)
    assert not re.search(r"<style|\sstyle=|#000000|#ffffff", svg[0])


def test_the_same_run_gives_the_same_page_and_files(root: Path) -> None:
    assert page(read_run(root)) == page(read_run(root))
    kinds = ("png", "svg", "pdf")
    first = {path: path.read_bytes() for path in export(read_run(root), kinds)}
    assert first == {path: path.read_bytes() for path in export(read_run(root), kinds)}
