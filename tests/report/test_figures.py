"""Figures come from one list: what a package adds is checked, and the page draws from the numbers of the files."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from raymap.analysis.reduce import reduce_run
from raymap.errors import InputError
from raymap.report.export.write import export
from raymap.report.figures import figures
from raymap.report.page import page
from raymap.results import read_run
from raymap.testing.runs import SyntheticRun, write_run
from tests.report.added_figure import LIKELY, installed
from tests.report.invented import ADAPTERS, PROMPTS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run"), SyntheticRun(ADAPTERS, PROMPTS, seeds=4, side=16))
    reduce_run(folder)
    return folder


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
