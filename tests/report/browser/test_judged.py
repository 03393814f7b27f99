"""Further judges in the report: their section, and their measures of the map, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from playwright.sync_api import Browser

from raymap import open_run
from raymap.analysis.reduce import reduce_run
from raymap.report.page import render
from raymap.study.suite import CATEGORIES
from raymap.testing.runs import SyntheticRun, write_run
from tests.browser import Opened, opened
from tests.judged_rows import write_judged

ADAPTERS = (
    ("face-a-lora", "lora", "face-a", "face"),
    ("style-b-lora", "lora", "style-b", "style"),
    ("identity-lora", "identity", "identity", "control"),
)
PROMPTS = [(f"a {thing} number {k}", CATEGORIES[k % 6]) for k, thing in enumerate(("bell", "boat", "drum", "fern") * 3)]
MENU = ["E_sem: meaning", "signed: better or worse", "E_per: image", "E: both"]
ADDED = ["colours: distance", "defects: change", "defects: better or worse"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_run(tmp_path_factory.mktemp("run"), SyntheticRun(ADAPTERS, PROMPTS, seeds=3, side=32))
    write_judged(root)
    reduce_run(root)
    render(root)
    return root


def read(text: str, signed: bool = False) -> float:
    """Read a number as the map shows those of judges: a true minus sign, and a plus sign where it is signed."""
    assert re.fullmatch(r"0|[+−]?[0-9]+(\.[0-9]+)?", text), text
    assert text.startswith("+") == (signed and text[0] not in "0−"), text
    return float(text.replace("−", "-"))


def near(value: float) -> Any:
    """Three significant digits of four."""
    return pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("label", "judge", "column"),
    [(ADDED[0], "colours", "shift"), (ADDED[1], "defects", "shift"), (ADDED[2], "defects", "shift_signed")],
)
def test_the_map_shows_each_judges_measures(
    seen: Opened, run_folder: Path, label: str, judge: str, column: str
) -> None:
    menu = [text for text in seen.page.locator("[name=measure] option").all_inner_texts() if text not in MENU]
    assert menu == ADDED
    seen.page.select_option("[name=measure]", label=label)
    cells = open_run(run_folder).judged.filter(pl.col("judge") == judge)
    for row in cells.iter_rows(named=True):
        text = seen.cell(row["prompt_id"], row["adapter"]).inner_text()
        assert read(text, signed=column == "shift_signed") == near(row[column]), row
    seen.page.select_option("[name=cells]", "floor")
    assert seen.page.locator("#grid td:not(.off)").count() == cells["above_tau"].sum() > 0


def test_a_lower_score_is_better_where_the_judge_says_so(seen: Opened, run_folder: Path) -> None:
    """`defects` counts what is wrong: the cell with the largest rise has the darkest shade of degradation, d0."""
    seen.page.select_option("[name=measure]", label=ADDED[2])
    cells = open_run(run_folder).judged.filter(pl.col("judge") == "defects").sort("shift_signed")
    top = float(cells["shift_signed"].to_numpy().__abs__().max())
    for row in (cells.row(0, named=True), cells.row(-1, named=True)):
        classes = (seen.cell(row["prompt_id"], row["adapter"]).get_attribute("class") or "").split()
        assert f"d{round((1 - row['shift_signed'] / top) * 16)}" in classes
    low, high = (seen.page.locator(f"#legend-{end}").inner_text() for end in ("low", "high"))
    assert read(low.removeprefix("worse "), signed=True) == near(top)
    assert read(high.removesuffix(" better"), signed=True) == near(-top)


def test_the_section_lists_every_judge_and_adapter_with_both_floors(seen: Opened, run_folder: Path) -> None:
    section = seen.page.locator("section[aria-labelledby=judges]")
    statistics = open_run(run_folder).statistics["judged"]
    rows = section.locator("tbody tr").all_inner_texts()
    assert len(rows) == len(statistics["adapters"]) == 4
    for text, entry in zip(rows, statistics["adapters"], strict=True):
        cells = text.split("\t")
        assert cells[:2] == [entry["judge"], entry["adapter"]]
        assert cells[2].startswith(f"{entry['shift']['value']:.4g}")
        assert cells[4:] == [f"{entry[key]} / {entry['shift']['n']}" for key in ("above_tau", "above_matched")]
        assert (cells[3] == "–") == (entry["judge"] == "colours")
    described = section.locator("li").all_inner_texts()
    assert [text.split(",")[0] for text in described] == ["colours", "defects"]
    assert "version sha256:0: a prompt judge, in defects; lower is better" in described[1]
    assert all("largest shift of an identity control: 0" in text for text in described)


def test_a_cells_numbers_include_the_judges(seen: Opened, run_folder: Path) -> None:
    seen.cell("p007", "style-b-lora").click()
    numbers = seen.page.locator("#pair-numbers")
    values = open_run(run_folder).judged.filter(pl.col("prompt_id") == "p007", pl.col("adapter") == "style-b-lora")
    for label, judge, column in zip(
        ADDED, ("colours", "defects", "defects"), ("shift", "shift", "shift_signed"), strict=True
    ):
        value = values.filter(pl.col("judge") == judge)[column][0]
        term = numbers.locator("div").filter(has=seen.page.get_by_text(label, exact=True))
        assert read(term.locator("dd").inner_text(), signed=column == "shift_signed") == near(value)


def test_a_run_without_further_judges_has_neither_section_nor_measures(chromium: Browser, tmp_path: Path) -> None:
    root = write_run(tmp_path, SyntheticRun(ADAPTERS, PROMPTS, seeds=2, side=16))
    reduce_run(root)
    render(root)
    with opened(chromium, root / "report" / "index.html") as plain:
        assert plain.page.locator("[name=measure] option").all_inner_texts() == MENU
        assert plain.page.locator("#judges").count() == 0
        assert plain.complaints == []
