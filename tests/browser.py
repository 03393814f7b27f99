"""A real headless Chromium for tests of the report: what it complains of and what it fetches is written down."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, sync_playwright

from tests.commands import HANG_S

HANG_MS = HANG_S * 1000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Opened:
    """A page in the browser: `complaints` are its errors and warnings, `asked` what it fetched besides itself."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def refuse(self, dialog: Dialog) -> None:
        """Write down and close a dialog that some script opened."""
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def cell(self, prompt: str, adapter: str) -> Locator:
        """Return the map's cell of a prompt id and an adapter."""
        at = self.page.evaluate(
            "([p, a]) => cellOf(prompts.find(x => x.id === p), adapters.find(x => x.name === a))", [prompt, adapter]
        )
        return self.page.locator(f'#grid td[data-cell="{at}"]')

    def rows(self) -> list[str]:
        """Return the ids of the prompts in the map, from top to bottom."""
        return list(self.page.evaluate("shown.rows.map(p => p.id)"))

    def columns(self) -> list[str]:
        """Return the adapters in the map, from left to right."""
        return list(self.page.evaluate("shown.columns.map(a => a.name)"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, one per process. Without one on this machine, tests that ask for it are skipped."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            timeout=HANG_MS,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report_page(run_folder: Path, chromium: Browser) -> Iterator[Opened]:
    """The report of the module's own `run_folder`, opened once on a wide screen."""
    with opened(chromium, run_folder / "report" / "index.html", viewport={"width": 1280, "height": 900}) as page:
        yield page


@pytest.fixture
def seen(report_page: Opened) -> Iterator[Opened]:
    """The module's report as it is when opened; whatever a test does, it must leave no complaint and no request."""
    report_page.page.reload()
    report_page.asked.clear()
    yield report_page
    assert report_page.complaints == []
    assert [url for url in report_page.asked if not url.startswith("data:")] == []


@contextlib.contextmanager
def opened(chromium: Browser, path: Path, **options: Any) -> Iterator[Opened]:
    """Open a file in a fresh profile, with Playwright's options for a page (color_scheme, viewport, …)."""
    page = chromium.new_page(**options)
    page.set_default_timeout(HANG_MS)
    seen = Opened(page)
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("dialog", seen.refuse)
    page.on("request", lambda request: seen.asked.append(request.url))
    page.goto(path.as_uri())
    seen.asked = [url for url in seen.asked if url != path.as_uri()]
    yield seen
    page.close()


def pixels(image: Locator) -> np.ndarray:
    """Return what an <img> decodes to, uint8 (H, W, 3)."""
    image.evaluate("i => i.decode()")
    shape = image.evaluate("i => [i.naturalHeight, i.naturalWidth]")
    values = image.evaluate(
        """i => {
            const size = {width: i.naturalWidth, height: i.naturalHeight};
            const canvas = Object.assign(document.createElement("canvas"), size);
            const context = canvas.getContext("2d", {willReadFrequently: true});
            context.drawImage(i, 0, 0);
            return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
        }"""
    )
    return np.array(values, dtype=np.uint8).reshape(*shape, 4)[:, :, :3]
