"""Names and prompts that mean harm, or are only unusual, neither break nor run anything in a report."""

from __future__ import annotations

import subprocess
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser

from raymap.analysis.reduce import reduce_run
from raymap.report.export.write import FORMATS, export
from raymap.report.page import render
from raymap.report.payload import script_json
from raymap.results import read_run
from raymap.testing.runs import Invented, write_run
from tests.browser import needs_browser, opened
from tests.conftest import raymap_command

IMAGE = "<img src=x onerror=alert(1)>"
PATH = "../../etc"
PROMPTS = [
    (IMAGE, "people"),
    (PATH, "animals"),
    ("word " * 2000, "objects"),
    ("منظر طبيعي عند الغروب <b>", "scenes"),
    ("a fox 🦊 under \u202eturned\u202c letters", "styles"),
    (
        "</script><script>alert(2)</script> \u2028 $x_1$ | `a` \\end{table} & % # [bold red]no[/] \x1b[31mred",
        "abstract",
    ),
]
ADAPTERS = [
    (IMAGE, "lora", "face-a", "face"),
    (PATH, "custom_diffusion", "face-a", "face"),
    ("\x1b]0;title\x07[bold]a|b[/bold]", "custom_diffusion", "🦊", "style"),
    ("=1+1", "textual_inversion", "c", "object"),
]
CARDS = {IMAGE: {"licence": "<script>alert(3)</script>", "consent": "given <i>in writing</i>", "sha256": "0" * 64}}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_run(tmp_path_factory.mktemp("hostile") / "run", Invented(ADAPTERS, PROMPTS, 4, 16, False, CARDS))
    reduce_run(root)
    render(root)
    return root


@needs_browser
def test_the_page_shows_them_as_text_and_runs_nothing(hostile: Path, chromium: Browser) -> None:
    with opened(chromium, hostile / "report" / "index.html") as seen:
        page = seen.page
        assert page.locator("#grid td").count() == len(PROMPTS) * len(ADAPTERS)
        for k, (text, _) in enumerate(PROMPTS):
            for adapter, *_ in ADAPTERS:
                seen.cell(f"p{k:03d}", adapter).click()
                assert page.locator("#pair-prompt bdi").evaluate("b => b.textContent") == text
                assert page.locator("#pair-adapter").evaluate("b => b.textContent") == adapter
                page.keyboard.press("Escape")
        assert page.locator("#cards ~ .scroll").inner_text().count("<script>alert(3)</script>") == 1
        assert page.locator("img[src=x]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("script").count() == 3
        page.fill("[name=text]", IMAGE)
        assert seen.rows() == ["p000"]
        assert [url for url in seen.asked if not url.startswith("data:")] == []
        assert seen.complaints == []


@needs_browser
def test_a_script_that_got_into_the_page_would_not_run(hostile: Path, chromium: Browser, tmp_path: Path) -> None:
    text = (hostile / "report" / "index.html").read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("<header>", "<header><script>alert(4)</script><img src=x onerror=alert(5)>", 1))
    with opened(chromium, broken) as seen:
        assert not [complaint for complaint in seen.complaints if complaint.startswith("dialog")]
        assert [complaint for complaint in seen.complaints if "Content Security Policy" in complaint]


def test_nothing_outside_the_report_folder_is_written(hostile: Path) -> None:
    before = {path for path in hostile.parent.rglob("*") if "report" not in path.parts}
    written = export(read_run(hostile), FORMATS)
    assert {path.parent for path in written} == {hostile / "report"}
    done = subprocess.run(raymap_command("show", hostile, "p000", "=1+1"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((hostile / "report" / "pairs").iterdir())) == 1
    assert {path for path in hostile.parent.rglob("*") if "report" not in path.parts} == before


def test_tables_keep_their_shape(hostile: Path) -> None:
    export(read_run(hostile), ("csv", "md", "latex"))
    table = pl.read_csv(hostile / "report" / "table_2.csv")
    assert set(table["prompt"]) == {text for text, _ in PROMPTS}
    lines = (hostile / "report" / "table_2.md").read_text().split("\n")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + table.height
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}
    latex = (hostile / "report" / "table_2.tex").read_text()
    assert latex.count(r"\end{table}") == 1
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


def test_the_terminal_gets_no_control_characters(hostile: Path) -> None:
    done = subprocess.run(raymap_command("report", hostile), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert IMAGE[:20] in done.stdout
    assert all(character.isprintable() or character in "\n\t" for character in done.stdout)
    refused = subprocess.run(
        raymap_command("show", hostile, "p000", "\x1b[31m"), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert all(character.isprintable() or character == "\n" for character in refused.stderr)


def test_data_in_a_script_element_cannot_end_it() -> None:
    text = script_json({"</script><!--": "\u2028\u2029&"})
    assert not set(text) & set("<>&\u2028\u2029")
    assert r"\u003c/script\u003e" in text
