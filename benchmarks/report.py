"""Measures how large a report of the paper's shape is, how long it takes to write, and how quickly it opens.

    python -m benchmarks.report [--prompts 200] [--subjects 5] [--seeds 10] [--side 128] [--folder DIR]

Writes synthetic scores and images of 9 × `subjects` adapters, reduces and renders them, then opens the page in headless
Chromium. The seconds are those from the start of navigation until the map is painted, those until the map is painted in
another order, and those until the images of a cell are shown. `--folder` keeps the run folder, or uses an existing one.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from raymap.analysis.reduce import reduce_run
from raymap.report.page import render
from raymap.testing.runs import full_size, write_run

PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
SHOWN = """async () => {
    const image = document.getElementById("pair-adapted");
    const start = performance.now();
    openPair(data.pairs.cell[0]);
    await image.decode();
    return performance.now() - start;
}"""


def open_page(path: Path, times: int) -> dict[str, list[float]]:
    """Return seconds until the page is painted, is painted in another order, and shows a pair, by name.

    Every time has a browser of its own. "main thread until then" is the processor time of the page's main thread until
    it is painted, which other work on the machine does not lengthen.
    """
    names = ("opened", "main thread until then", "ordered by shift", "pair shown")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    for _ in range(times):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(path.as_uri(), wait_until="commit")
            page.wait_for_selector("#grid td")
            seconds["opened"].append(page.evaluate(PAINTED) / 1000)
            metrics = session.send("Performance.getMetrics")["metrics"]
            seconds["main thread until then"].append(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))
            before = page.evaluate("performance.now()")
            page.select_option("[name=rows]", "shift")
            seconds["ordered by shift"].append((page.evaluate(PAINTED) - before) / 1000)
            page.wait_for_load_state()
            seconds["pair shown"].append(page.evaluate(SHOWN) / 1000)
            browser.close()
    return seconds


def main() -> None:
    """Write, reduce, render and open a report; print the seconds of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("prompts", 200), ("subjects", 5), ("seeds", 10), ("side", 128), ("times", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="run folder to keep, or an existing one to use")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raymap-report-") as temporary:
        root = args.folder or Path(temporary) / "run"
        if not (root / "statistics.json").exists():
            start = time.perf_counter()
            write_run(root, full_size(args.prompts, args.subjects, args.seeds, args.side))
            print(f"written in {time.perf_counter() - start:.0f} s")
            start = time.perf_counter()
            reduce_run(root)
            print(f"reduced in {time.perf_counter() - start:.0f} s")
        start = time.perf_counter()
        path = render(root)
        print(f"rendered in {time.perf_counter() - start:.1f} s: {path.stat().st_size / 1e6:.1f} MB")
        for name, seconds in open_page(path, args.times).items():
            print(f"{name}: median {statistics.median(seconds):.2f} s of {', '.join(f'{s:.2f}' for s in seconds)}")


if __name__ == "__main__":
    main()
