"""The report's map in a real browser: orders, filters, keyboard, and the right two images of every cell."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import Browser

from raymap.analysis.reduce import reduce_run
from raymap.report.page import render
from raymap.results import read_run
from raymap.study.suite import CATEGORIES
from raymap.testing.runs import SyntheticRun, write_run
from tests.browser import Opened, opened, pixels

ADAPTERS = (
    ("face-a-lora", "lora", "face-a", "face"),
    ("face-a-custom_diffusion", "custom_diffusion", "face-a", "face"),
    ("face-a-textual_inversion", "textual_inversion", "face-a", "face"),
    ("style-b-lora", "lora", "style-b", "style"),
    ("style-b-custom_diffusion", "custom_diffusion", "style-b", "style"),
    ("identity-lora", "identity", "identity", "control"),
)
PROMPTS = [(f"a {thing} number {k}", CATEGORIES[k % 6]) for k, thing in enumerate(("bell", "boat", "drum", "fern") * 5)]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_run(tmp_path_factory.mktemp("run"), SyntheticRun(ADAPTERS, PROMPTS, seeds=8, side=32))
    reduce_run(root)
    render(root)
    return root


@pytest.fixture(scope="module")
def cells(run_folder: Path) -> pl.DataFrame:
    return read_run(run_folder).cells


def mean_shift(cells: pl.DataFrame, column: str) -> dict[str, float]:
    judged = cells.filter(pl.col("method") != "identity")
    return dict(judged.group_by("prompt_id").agg(pl.col(column).abs().mean()).iter_rows())


def test_every_cell_shows_its_number(seen: Opened, cells: pl.DataFrame) -> None:
    for row in cells.iter_rows(named=True):
        text = seen.cell(row["prompt_id"], row["adapter"]).inner_text()
        assert float(text) == pytest.approx(row["e_sem"], abs=0.00051)


def test_prompts_and_adapters_are_ordered_by_category_shift_and_cluster(seen: Opened, cells: pl.DataFrame) -> None:
    shift = mean_shift(cells, "e_sem")
    category = dict(cells.select("prompt_id", "prompt_category").unique().iter_rows())
    assert seen.rows() == sorted(shift, key=lambda p: (CATEGORIES.index(category[p]), -shift[p]))
    seen.page.select_option("[name=rows]", "shift")
    assert seen.rows() == sorted(shift, key=lambda p: -shift[p])
    seen.page.select_option("[name=measure]", "e_per")
    shift = mean_shift(cells, "e_per")
    assert seen.rows() == sorted(shift, key=lambda p: -shift[p])
    seen.page.select_option("[name=columns]", "shift")
    adapters = cells.filter(pl.col("method") != "identity").group_by("adapter").agg(pl.col("e_per").mean())
    assert seen.columns() == [*adapters.sort("e_per", descending=True)["adapter"], "identity-lora"]
    seen.page.select_option("[name=rows]", "cluster")
    seen.page.select_option("[name=columns]", "cluster")
    assert sorted(seen.rows()) == sorted(shift)
    at = seen.columns().index
    assert abs(at("face-a-textual_inversion") - at("identity-lora")) == 1  # both are zero everywhere


def test_filters_keep_what_they_name(seen: Opened, cells: pl.DataFrame) -> None:
    seen.page.fill("[name=text]", "FERN")
    assert sorted(seen.rows()) == sorted(cells.filter(pl.col("prompt").str.contains("fern"))["prompt_id"].unique())
    seen.page.fill("[name=text]", "style-b")
    assert sorted(seen.columns()) == ["style-b-custom_diffusion", "style-b-lora"]
    seen.page.get_by_role("button", name="Reset").click()
    seen.page.wait_for_function("shown.rows.length === prompts.length")
    seen.page.select_option("[name=category]", "scenes")
    seen.page.select_option("[name=method]", "lora")
    assert sorted(seen.columns()) == ["face-a-lora", "style-b-lora"]
    assert len(seen.rows()) == sum(category == "scenes" for _, category in PROMPTS)


@pytest.mark.parametrize(
    ("measure", "kind", "matching"),
    [
        ("e_sem", "floor", pl.col("above_tau_sem")),
        ("e_per", "floor", pl.col("above_tau_per")),
        ("e_sem_signed", "sure", pl.col("fell") | pl.col("rose")),
        ("e", "floor", pl.col("above_tau_sem") | pl.col("above_tau_per")),
    ],
)
def test_cells_above_the_floor_or_significant_are_filtered(
    seen: Opened, cells: pl.DataFrame, measure: str, kind: str, matching: pl.Expr
) -> None:
    wanted = cells.filter(matching)
    assert 0 < wanted.height < cells.height
    seen.page.select_option("[name=measure]", measure)
    seen.page.select_option("[name=cells]", kind)
    assert sorted(seen.rows()) == sorted(wanted["prompt_id"].unique())
    assert sorted(seen.columns()) == sorted(wanted["adapter"].unique())
    assert f"{wanted.height} cells" in seen.page.locator("#count").inner_text()
    assert seen.page.locator("#grid td:not(.off)").count() == wanted.height


def test_target_and_significant_cells_are_marked(seen: Opened, cells: pl.DataFrame) -> None:
    assert seen.page.locator("#grid td.t").count() == cells["target"].sum()
    seen.page.select_option("[name=measure]", "e_sem_signed")
    assert seen.page.locator("#grid td.q").count() == (cells["fell"] | cells["rose"]).sum()
    worst = cells.sort("e_sem_signed").row(0, named=True)
    assert "d0" in (seen.cell(worst["prompt_id"], worst["adapter"]).get_attribute("class") or "").split()


@pytest.mark.parametrize("adapter", ["style-b-custom_diffusion", "face-a-lora", "face-a-textual_inversion"])
def test_a_click_opens_the_two_images_of_the_cell(seen: Opened, run_folder: Path, adapter: str) -> None:
    seen.cell("p007", adapter).click()
    assert seen.page.locator("#pair").is_visible()
    assert seen.page.locator("#pair-prompt").inner_text() == PROMPTS[7][0]
    assert seen.page.locator("#pair-adapter").inner_text() == adapter
    folder = run_folder / "images" / adapter / "p007"
    scores = read_run(run_folder).scores.filter(pl.col("prompt_id") == "p007", pl.col("adapter") == adapter)
    seed = scores.sort("lpips", "seed", descending=[True, False])["seed"][0]
    base = kept(run_folder / "images" / "base" / "p007" / f"{seed}.png")
    adapted = kept(folder / f"{seed}.png") if scores["drawn"][0] else base
    assert np.array_equal(pixels(seen.page.locator("#pair-base")), base)
    assert np.array_equal(pixels(seen.page.locator("#pair-adapted")), adapted)
    assert np.array_equal(base, adapted) == (adapter == "face-a-textual_inversion")
    expected = np.minimum(np.abs(adapted.astype(int) - base) * 3, 255)
    seen.page.wait_for_function("document.getElementById('pair-difference').width === 32")
    read = "c => Array.from(c.getContext('2d').getImageData(0, 0, 32, 32).data)"
    drawn = seen.page.locator("#pair-difference").evaluate(read)
    assert np.array_equal(np.array(drawn).reshape(32, 32, 4)[:, :, :3], expected)
    for link in seen.page.locator("#pair-links a").all():
        target = (run_folder / "report" / (link.get_attribute("href") or "")).resolve()
        assert np.array_equal(kept(target), base if link.inner_text() == "base" else adapted)


def kept(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_whole_way_by_keyboard(seen: Opened, run_folder: Path) -> None:
    keys = seen.page.keyboard
    seen.page.locator("[name=text]").focus()
    for _ in range(20):
        keys.press("Tab")
        if seen.page.evaluate("document.activeElement.matches('#grid td')"):
            break
    rows, columns = seen.rows(), seen.columns()
    focused = (
        "[promptOf(+document.activeElement.dataset.cell).id, adapterOf(+document.activeElement.dataset.cell).name]"
    )
    for key in ("Home", "ArrowDown", "ArrowRight", "ArrowRight"):
        keys.press(key)
    start = seen.page.evaluate(focused)
    r, c = rows.index(start[0]), columns.index(start[1])
    assert c == 2
    assert start[1] in seen.page.locator("#readout").inner_text()
    keys.press("Enter")
    assert seen.page.locator("#pair-adapter").inner_text() == columns[c]
    keys.press("ArrowRight")
    assert seen.page.locator("#pair-adapter").inner_text() == columns[c + 1]
    keys.press("ArrowDown")
    text = dict(read_run(run_folder).cells.select("prompt_id", "prompt").unique().iter_rows())[rows[r + 1]]
    assert seen.page.locator("#pair-prompt").inner_text() == text
    keys.press("Escape")
    assert not seen.page.locator("#pair").is_visible()
    # a dialog tells that it was closed a task later than it closes
    there = f"expected => JSON.stringify({focused}) === expected"
    seen.page.wait_for_function(there, arg=json.dumps([rows[r + 1], columns[c + 1]], separators=(",", ":")))
    keys.press("End")
    assert seen.page.evaluate(focused)[1] == columns[-1]


def test_images_flip_while_space_is_held_and_the_slider_uncovers(seen: Opened) -> None:
    seen.cell("p004", "style-b-lora").click()
    clip = "getComputedStyle(document.getElementById('stage-adapted')).clipPath"
    seen.page.get_by_role("button", name="Flip").click()
    assert seen.page.locator("#stage-name").inner_text() == "base"
    seen.page.keyboard.down("Space")
    assert seen.page.evaluate(clip) == "none"
    assert seen.page.locator("#stage-name").inner_text() == "adapted"
    seen.page.keyboard.up("Space")
    assert seen.page.evaluate(clip) == "inset(0px 0px 0px 100%)"
    seen.page.get_by_role("button", name="Slider").click()
    seen.page.locator("#slider").focus()
    for _ in range(5):
        seen.page.keyboard.press("ArrowRight")
    assert seen.page.evaluate(clip) == "inset(0px 0px 0px 45%)"
    assert seen.page.locator("#pair-adapter").inner_text() == "style-b-lora"  # the arrows moved the slider alone


def test_buttons_of_the_verdict_open_their_cell_and_get_the_focus_back(seen: Opened) -> None:
    button = seen.page.locator(".look button").first
    button.click()
    assert seen.page.locator("#pair-prompt").inner_text() == button.inner_text()
    seen.page.keyboard.press("Escape")
    assert button.evaluate("b => b === document.activeElement")


def test_headings_come_in_order_and_images_have_words(seen: Opened) -> None:
    levels = seen.page.locator("main :is(h1, h2, h3, h4)").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert seen.page.locator("main img:not([alt])").count() == 0
    assert seen.page.locator("table:not(#grid):not(:has(caption))").count() == 0
    assert seen.page.locator("#grid td").first.evaluate("td => td.textContent") != ""


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}])
def test_dark_and_narrow(run_folder: Path, chromium: Browser, options: dict[str, Any]) -> None:
    with opened(chromium, run_folder / "report" / "index.html", **options) as seen:
        ground = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in re.findall(r"\d+", ground)[:3]) / 3
        assert (brightness < 60) == ("color_scheme" in options)
        seen.cell("p003", "style-b-lora").click()
        assert seen.page.locator("#pair").bounding_box() is not None
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert seen.complaints == []


def test_in_print_the_whole_map_is_there_and_its_controls_are_not(run_folder: Path, chromium: Browser) -> None:
    with opened(chromium, run_folder / "report" / "index.html", color_scheme="dark") as seen:
        seen.page.emulate_media(media="print")
        assert not seen.page.locator("#controls").is_visible()
        assert seen.page.locator("#heat").evaluate("h => h.scrollHeight <= h.clientHeight + 1")
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
