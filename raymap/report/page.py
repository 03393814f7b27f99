"""Renders a run folder as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raymap.analysis.numerics.crossed import ALONE
from raymap.analysis.paper.published import METHODS
from raymap.display.text import significant
from raymap.report import judged, sections
from raymap.report.colours import SUBJECTS, palette
from raymap.report.markers import marker_path
from raymap.report.payload import payload, script_json
from raymap.report.pictures import GAIN
from raymap.report.source import Run, read_run
from raymap.report.thumbnails import BUDGET, gallery
from raymap.report.verdict import verdict
from raymap.store.files import write_atomically

TEMPLATES = files("raymap.report") / "templates"
SHORT = 90
"""Characters of a prompt in tables and captions; the pair's dialog has all of them."""


def render(root: Path, budget: int = BUDGET) -> Path:
    """Write `report/index.html` from a reduced run folder and its kept pictures, and return its path.

    Args:
        budget: bytes of all embedded pictures.

    Raises:
        InputError: map, tests, statistics or scores are not there (run `raymap stats` first), or a picture is damaged.
    """
    return write_page(read_run(root), budget)


def write_page(run: Run, budget: int = BUDGET) -> Path:
    """Write a run's page and return its path."""
    write_atomically(run.folder.report, page(run, budget).encode())
    return run.folder.report


def page(run: Run, budget: int = BUDGET) -> str:
    """Return the page. Its policy names its script and style by their digests, so that no other ones count."""
    shown = gallery(run, budget)
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("map.js", "pair.js"))
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8") + palette()
    embedded = shown.pairs["base"].count()
    context: dict[str, Any] = {
        "run": run,
        "statistics": run.statistics,
        "verdict": verdict(run),
        "scatter": sections.scatter(run),
        "matrix": sections.matrix(run),
        "fragile": sections.prompt_cards(run, shown, "most_fragile"),
        "robust": sections.prompt_cards(run, shown, "most_robust"),
        "controls": sections.controls(run),
        "adapter_cards": sections.adapter_cards(run),
        "distances": sections.distance_tables(run),
        "judges": judged.judges(run),
        "colours": SUBJECTS,
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
        "pictures": Markup(script_json(shown.pictures)),
    }
    return _environment().get_template("page.html.jinja").render(context)


def _attention(run: Run) -> dict[str, Any]:
    """Return what is drawn of attention; matplotlib is loaded only where there is something to draw."""
    if not run.attention:
        return {"moved": [], "layer_plot": None, "word_maps": []}
    from raymap.report import attention

    return {
        "moved": attention.moved(run.attention),
        "layer_plot": attention.layer_plot(run.attention),
        "word_maps": attention.word_maps(run),
    }


def _policy_digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("raymap.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False,
    )  # fmt: skip
    environment.filters |= {"short": short, "number": number, "estimate": estimate, "crossed": crossed}
    environment.filters["significant"] = scaled
    environment.filters["marker"] = marker_path
    return environment


def short(text: str, length: int = SHORT) -> str:
    """Return a text cut to a length, an ellipsis in the place of the rest."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def number(value: float | None, digits: int = 4, signed: bool = False) -> str:
    """Return a number for people, with a true minus sign; a dash where there is none."""
    if value is None:
        return "–"
    sign = "+" if signed and round(value, digits) > 0 else ""
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def estimate(value: dict[str, Any] | None, digits: int = 4, signed: bool = False) -> Markup:
    """Return an estimate with its interval in brackets; a dash where there is none."""
    if not value or value["value"] is None:
        return Markup("–")
    shown = number(value["value"], digits, signed)
    if value["low"] is None:
        return Markup(shown)
    interval = f"{number(value['low'], digits, signed)}, {number(value['high'], digits, signed)}"
    return Markup('{} <span class="dim">[{}]</span>').format(shown, interval)


def scaled(value: dict[str, Any] | None, signed: bool = False) -> Markup:
    """Return an estimate of any scale, to four significant digits, with its interval in brackets."""
    if not value or value["value"] is None:
        return Markup("–")
    shown, low, high = (significant(value[key], signed).replace("-", "−") for key in ("value", "low", "high"))
    return Markup(shown if value["low"] is None else f'{shown} <span class="dim">[{low}, {high}]</span>')


def crossed(value: dict[str, Any] | None, digits: int = 4, signed: bool = False) -> Markup:
    """Return an estimate that is to hold over prompts and subjects; where it does over one side alone, that is said."""
    shown = estimate(value, digits, signed)
    if not value or value["low"] is None or value["method"] not in ALONE:
        return shown
    return Markup('{} <span class="dim">{}</span>').format(shown, ALONE[value["method"]])
