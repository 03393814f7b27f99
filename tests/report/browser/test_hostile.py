"""Hostile names and prompts are shown as text, and run nothing, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser import opened
from tests.report.hostile_run import ADAPTERS, IMAGE, PROMPTS, write_hostile_run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hostile_run(tmp_path_factory.mktemp("hostile") / "run")


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


def test_a_script_that_got_into_the_page_would_not_run(hostile: Path, chromium: Browser, tmp_path: Path) -> None:
    text = (hostile / "report" / "index.html").read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("<header>", "<header><script>alert(4)</script><img src=x onerror=alert(5)>", 1))
    with opened(chromium, broken) as seen:
        assert not [complaint for complaint in seen.complaints if complaint.startswith("dialog")]
        assert [complaint for complaint in seen.complaints if "Content Security Policy" in complaint]
