"""The document: results are recomputed from reduced run folders, then rendered."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raymap.errors import InputError
from raymap.report import page
from raymap.report.page import number
from raymap.store.files import as_json, write_atomically
from tools.results_page.findings import context
from tools.results_page.reduced import RECOMPUTED, read_json, recompute, same

DOCS = Path(__file__).parents[2] / "docs"
TEMPLATE = DOCS / "results" / "results.md.j2"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PAPER = "paper"
"""The run folder that gets a report and figures."""


@dataclass(frozen=True)
class Rebuilt:
    """The rendered document, and every JSON file that was recomputed, by its path within docs/results/."""

    page: str
    found: dict[str, dict[str, Any]]

    def differences(self, docs: Path) -> list[str]:
        """Return the files within `docs` that differ from what was recomputed."""
        page, results = docs / "results.md", docs / "results"
        stale = [
            name for name, held in self.found.items()
            if not (results / name).exists() or not same(read_json(results / name), held)
        ]  # fmt: skip
        if not page.exists() or page.read_text(encoding="utf-8") != self.page:
            stale.append("results.md")
        return stale

    def write(self, docs: Path) -> None:
        """Write the files that differ."""
        for name in self.differences(docs):
            content = self.page.encode() if name == "results.md" else as_json(self.found[name])
            write_atomically(docs / name if name == "results.md" else docs / "results" / name, content)


def rebuild(results: Path) -> Rebuilt:
    """Recompute all results from Arrow files, in a copy of their folder.

    Raises:
        InputError: there is no run folder of the paper's study.
    """
    if not (results / PAPER / "statistics.json").exists():
        problem = "holds no run folder `paper`"
        raise InputError(
            str(results), problem, "collect it: python -m tools.results_page --collect RUNS/paper RUNS/why"
        )
    with tempfile.TemporaryDirectory(prefix="raymap-results-") as temporary:
        copy = Path(shutil.copytree(results, Path(temporary) / "results"))
        for path in sorted(copy.glob("*/statistics.json")):
            recompute(path.parent)
        found = {str(p.relative_to(copy)): read_json(p) for name in RECOMPUTED for p in sorted(copy.glob(f"*/{name}"))}
        plan = copy / "plan.json"
        told = context(copy, read_json(plan) if plan.exists() else {})
        return Rebuilt(rendered(told), found)  # within the block: runs read their files when they are asked for them


def rendered(told: dict[str, Any]) -> str:
    """Return the document as Markdown."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters |= {"n": number, "est": estimate, "p": p_value, "pct": percent, "time": duration, "cell": cell,
                            "printed": printed}  # fmt: skip
    environment.globals |= {"sign": sign}
    text = environment.get_template(TEMPLATE.name).render(told)
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def estimate(held: Mapping[str, Any] | None, digits: int = 4, signed: bool = False) -> str:
    """Return an estimate with its interval in print, with true minus signs."""
    return page.estimate(held, digits, signed).striptags()


def p_value(value: float | None) -> str:
    """Return a p-value with two digits."""
    return "–" if value is None else "1" if value > 0.995 else f"{value:.2g}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of one in percent."""
    return "–" if share is None else f"{number(100 * share, digits)} %"


def duration(seconds: float) -> str:
    """Return seconds as hours and minutes."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def cell(given: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return given.replace("|", "\\|").replace("\n", " ")


def printed(given: str) -> str:
    """Return a text with powers of ten in the place of TeX, and with true minus signs."""
    power = re.sub(r" \\times 10\^\{(-?\d+)\}", lambda found: f" × 10{found[1].translate(RAISED)}", given)
    return re.sub(r"(?<![\w)])-(?=\d)", "−", power)


def sign(value: Mapping[str, Any]) -> str:
    """Return where an interval lies: `above` 0, `below` 0, `open` if it contains 0, `unknown` if there is none."""
    if value["low"] is None:
        return "unknown"
    return "above" if value["low"] > 0 else "below" if value["high"] < 0 else "open"
