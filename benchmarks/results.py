"""docs/results.md from the Arrow files under docs/results/.

    python -m benchmarks.results --collect RUNS/paper RUNS/why   # reduce run folders into docs/results/
    python -m benchmarks.results --plan                          # reckon what jobs/paper.yaml would take
    python -m benchmarks.results                                 # recompute everything, write docs/results.md
    python -m benchmarks.results --check                         # compare instead; exit code 1 on a difference

A run folder's name is what the document calls it: `paper` is the study of the paper's shape, `why` the one with
interventions and attention; any of them may hold a factorial test. Run the first two, then the third.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.findings import context
from benchmarks.reduced import RECOMPUTED, collect, read_json, recompute, same
from raymap.errors import InputError
from raymap.report.figures import figures
from raymap.report.figures import rendered as rendered_figure
from raymap.report.page import number, write_page
from raymap.report.source import read_run
from raymap.store.files import write_atomically
from raymap.store.folder import as_json

DOCS = Path(__file__).parents[1] / "docs"
TEMPLATE = Path(__file__).parents[1] / "docs" / "results" / "results.md.j2"
LIMIT = 10_000_000
"""Bytes of all that is committed under docs/results/."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
FIGURES = ("figure_1", "figure_2")
PAPER = "paper"
"""The run folder that gets a report and figures."""


@dataclass(frozen=True)
class Rebuilt:
    """The document, and every JSON file that was recomputed, by its path under docs/results/."""

    page: str
    found: dict[str, dict[str, Any]]

    def differences(self, docs: Path) -> list[str]:
        """Return the files under `docs` that are not what was recomputed."""
        page, results = docs / "results.md", docs / "results"
        stale = [
            name for name, held in self.found.items()
            if not (results / name).exists() or not same(read_json(results / name), held)
        ]  # fmt: skip
        if not page.exists() or page.read_text(encoding="utf-8") != self.page:
            stale.append("results.md")
        return stale

    def write(self, docs: Path) -> None:
        """Write what differs."""
        for name in self.differences(docs):
            content = self.page.encode() if name == "results.md" else as_json(self.found[name])
            write_atomically(docs / name if name == "results.md" else docs / "results" / name, content)


def rebuild(results: Path) -> Rebuilt:
    """Recompute everything from Arrow files, in a copy.

    Raises:
        InputError: there is no run folder of the paper's study.
    """
    if not (results / PAPER / "statistics.json").exists():
        problem = "holds no run folder `paper`"
        raise InputError(
            str(results), problem, "collect it: python -m benchmarks.results --collect RUNS/paper RUNS/why"
        )
    with tempfile.TemporaryDirectory(prefix="raymap-results-") as temporary:
        copy = Path(shutil.copytree(results, Path(temporary) / "results"))
        for path in sorted(copy.glob("*/statistics.json")):
            recompute(path.parent)
        found = {str(p.relative_to(copy)): read_json(p) for name in RECOMPUTED for p in sorted(copy.glob(f"*/{name}"))}
        plan = copy / "plan.json"
        told = context(copy, read_json(plan) if plan.exists() else {})
    return Rebuilt(rendered(told), found)


def rendered(told: dict[str, Any]) -> str:
    """Return the document."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters |= {"n": number, "est": estimate, "p": p_value, "pct": percent, "time": duration, "cell": cell,
                            "printed": printed}  # fmt: skip
    environment.globals |= {"sign": sign}
    page = environment.get_template(TEMPLATE.name).render(told)
    lines = "\n".join(line.rstrip() for line in page.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def estimate(value: dict[str, Any] | None, digits: int = 4, signed: bool = False) -> str:
    """Return an estimate with its interval, a dash where there is none."""
    if not value or value["value"] is None:
        return "–"
    shown = number(value["value"], digits, signed)
    if value["low"] is None:
        return shown
    return f"{shown} [{number(value['low'], digits, signed)}, {number(value['high'], digits, signed)}]"


def p_value(value: float | None) -> str:
    """Return a p-value to two digits."""
    return "–" if value is None else "1" if value > 0.995 else f"{value:.2g}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of one in percent."""
    return "–" if share is None else f"{number(100 * share, digits)} %"


def duration(seconds: float) -> str:
    """Return seconds in hours and minutes."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def cell(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def printed(text: str) -> str:
    """Return a text with powers of ten and true minus signs in the place of TeX and hyphens."""
    power = re.sub(r" \\times 10\^\{(-?\d+)\}", lambda found: f" × 10{found[1].translate(RAISED)}", text)
    return re.sub(r"(?<![\w)])-(?=\d)", "−", power)


def sign(value: dict[str, Any]) -> str:
    """Return what an interval says of its estimate: `above`, `below` 0, `open` where it holds 0, `unknown` without."""
    if value["low"] is None:
        return "unknown"
    return "above" if value["low"] > 0 else "below" if value["high"] < 0 else "open"


def collect_all(sources: Sequence[Path], results: Path) -> int:
    """Reduce run folders into docs/results/ and return the bytes of all that lies there.

    Raises:
        InputError: a folder cannot be reduced, or all together would exceed LIMIT; nothing is written then.
    """
    names = [source.resolve().name for source in sources]
    with tempfile.TemporaryDirectory(prefix="raymap-results-") as temporary:
        for name, source in zip(names, sources, strict=True):
            target = Path(temporary) / name
            collect(source, target)
            if name == PAPER:
                _illustrate(target)
        others = [path for path in results.glob("*") if path.name not in names]
        total = sum(map(size, [Path(temporary), *others]))
        if total > LIMIT:
            problem = f"would hold {total / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f} MB"
            raise InputError(str(results), problem, "collect runs with fewer prompts, seeds or interventions")
        for name in names:
            shutil.rmtree(results / name, ignore_errors=True)
            shutil.copytree(Path(temporary) / name, results / name)
    return total


def _illustrate(folder: Path) -> None:
    """Write a reduced run's report and the figures that the document shows."""
    run = read_run(folder)
    page = write_page(run)
    drawn = figures(run)
    for name in FIGURES:
        write_atomically(page.with_name(f"{name}.png"), rendered_figure(drawn[name](), "png"))


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())


def main(arguments: Sequence[str] | None = None, docs: Path = DOCS) -> int:
    """Do what the command line asks; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--collect", type=Path, nargs="+", metavar="RUN", help="run folders to reduce into docs/results/"
    )
    parser.add_argument("--plan", action="store_true", help="reckon what jobs/paper.yaml would take")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where anything differs")
    given = parser.parse_args(arguments)
    results = docs / "results"
    try:
        if given.collect:
            print(f"{results}: {collect_all(given.collect, results) / 1e6:.2f} MB")
        elif given.plan:
            from benchmarks.paper_cost import planned

            write_atomically(results / "plan.json", as_json(planned()))
            print(f"written: {results / 'plan.json'}")
        else:
            rebuilt = rebuild(results)
            stale = rebuilt.differences(docs)
            if not given.check:
                rebuilt.write(docs)
            for name in stale:
                print(f"{'differs' if given.check else 'written'}: {name}")
            return int(given.check and bool(stale))
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
