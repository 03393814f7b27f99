"""Renders a run folder as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raymap.analysis.numerics.crossed import ALONE
from raymap.analysis.paper.published import METHODS
from raymap.display import text
from raymap.report import attention, judged, sections
from raymap.report.colours import palette
from raymap.report.images import GAIN
from raymap.report.payload import payload, script_json
from raymap.report.thumbnails import BUDGET, gallery
from raymap.report.verdict import shown_verdict
from raymap.results import Run, read_run
from raymap.store.files import write_atomically

TEMPLATES = files("raymap.report") / "templates"
SHORT = 90
"""How many characters of a prompt tables and captions show; the dialog of a pair has all of them."""


def render(root: Path, budget: int = BUDGET) -> Path:
    """Write `report/index.html` from a reduced run folder and its kept images, and return its path.

    Args:
        budget: how many bytes all embedded images may take.

    Raises:
        InputError: the map, tests, statistics or scores are missing (run `raymap stats` first), or an image is damaged.
    """
    return write_page(read_run(root), budget)


def write_page(run: Run, budget: int = BUDGET) -> Path:
    """Write a run's page and return its path."""
    write_atomically(run.files.report, page(run, budget).encode())
    return run.files.report


def page(run: Run, budget: int = BUDGET) -> str:
    """Return the page. Its content policy names script and style by their digests, so no other ones take effect."""
    shown = gallery(run, budget)
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("map.js", "pair.js"))
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8") + palette()
    embedded = shown.pairs["base"].count()
    context: dict[str, Any] = {
        "run": run,
        "statistics": run.statistics,
        "verdict": shown_verdict(run),
        "answers": {row["adapter"]: row for row in run.verdict["adapters"]},
        "figures": sections.drawn(run),
        "matrix": sections.matrix(run),
        "fragile": sections.prompt_cards(run, shown, run.statistics["most_fragile"]),
        "robust": sections.prompt_cards(run, shown, run.statistics["most_robust"]),
        "controls": sections.controls(run),
        "adapter_cards": sections.adapter_cards(run),
        "distances": sections.distance_tables(run),
        "judges": judged.judges(run),
        "paper_methods": METHODS,
        "gain": GAIN,
        "embedded": embedded,
        "unembedded": shown.pairs.height - embedded,
        "unkept": run.cells.height - shown.pairs.height,
        "encoding": shown.encoding,
        "style": Markup(style),
        "style_digest": _policy_digest(style),
        "script": Markup(script),
        "script_digest": _policy_digest(script),
        "attention": run.attention,
        **_attention(run),
        "interventions": run.interventions,
        "data": Markup(script_json(payload(run, shown))),
        "images": Markup(script_json(shown.images)),
    }
    return _environment().get_template("page.html.jinja").render(context)


def _attention(run: Run) -> dict[str, Any]:
    if not run.attention:
        return {"moved": [], "layer_plot": None, "word_maps": []}
    return {
        "moved": attention.moved(run.attention),
        "layer_plot": attention.layer_plot(run.attention),
        "word_maps": attention.word_maps(run),
    }


def _policy_digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    """Return the templates' environment, which keeps what it compiled for the next page."""
    environment = Environment(
        loader=PackageLoader("raymap.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False,
    )  # fmt: skip
    environment.filters |= {
        "short": short,
        "number": number,
        "estimate": estimate,
        "crossed": crossed,
        "scaled": scaled,
    }
    return environment


def short(given: str, length: int = SHORT) -> str:
    """Return a text cut to a length, with an ellipsis in the place of the rest."""
    return given if len(given) <= length else given[: length - 1].rstrip() + "…"


def number(value: float | None, digits: int = 4, signed: bool = False) -> str:
    """Return a number in print, with a true minus sign."""
    return _typeset(text.number(value, digits, signed))


def estimate(held: Mapping[str, Any] | None, digits: int = 4, signed: bool = False) -> Markup:
    """Return an estimate in print, with its interval dimmed."""
    return _dimmed(text.estimate(held, digits, signed))


def scaled(held: Mapping[str, Any] | None, signed: bool = False) -> Markup:
    """Return an estimate of any scale in print, to four significant digits, with its interval dimmed."""
    return _dimmed(text.scaled(held, signed))


def crossed(held: Mapping[str, Any] | None, digits: int = 4, signed: bool = False) -> Markup:
    """Return an estimate over prompts and subjects; if its interval is over one of them alone, that is said."""
    shown = estimate(held, digits, signed)
    if not held or held["low"] is None or held["method"] not in ALONE:
        return shown
    return Markup('{} <span class="dim">{}</span>').format(shown, ALONE[held["method"]])


def _dimmed(estimate: str) -> Markup:
    value, _, interval = _typeset(estimate).partition(" ")
    return Markup('{} <span class="dim">{}</span>').format(value, interval) if interval else Markup(value)


def _typeset(plain: str) -> str:
    return plain.replace("-", "−")
