"""The pair of one cell as a single image: base, adapted and difference."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image, ImageDraw, ImageFont

from raymap.display.text import cut
from raymap.errors import InputError
from raymap.plan.blocks import BASE
from raymap.report.images import GAIN, chosen_pairs, decoded, difference
from raymap.results import Run

SMALLEST = 256
"""Images with a shorter side are enlarged by a whole factor, without smoothing."""
GAP, BAND = 8, 22
NAMED = 5
"""How many prompts a complaint about several matches names."""


@dataclass(frozen=True)
class Pair:
    """A cell of the map and the pair of the kept seed that moved most; `numbers` are the values of cell and seed."""

    prompt_id: str
    adapter: str
    seed: int
    numbers: dict[str, Any]
    base: Image.Image
    adapted: Image.Image


def find_pair(run: Run, prompt: str, adapter: str) -> Pair:
    """Find a cell by its prompt and its adapter.

    Args:
        prompt: the id of the prompt, its text, or a part of the text that no other prompt contains.
        adapter: the name of the adapter.

    Raises:
        InputError: no prompt matches or several do, the adapter is unknown, or no image of the cell is kept.
    """
    prompt_id, text = _prompt(run, prompt)
    known = run.cells["adapter"].unique().sort().to_list()
    if adapter not in known:
        raise InputError(f"adapter {cut(adapter)!r}", "is not in this run", f"use one of {', '.join(map(cut, known))}")
    at = (pl.col("prompt_id") == prompt_id) & (pl.col("adapter") == adapter)
    pairs = chosen_pairs(run).filter(at)
    if pairs.is_empty():
        where = f"prompt {prompt_id} under {cut(adapter)}"
        raise InputError(where, "has no kept image", "run the study with `images: report` or `images: all`")
    pair = pairs.row(0, named=True)
    cell = run.cells.filter(at).row(0, named=True)
    base = decoded(run.files.image(BASE, prompt_id, pair["seed"]))
    adapted = decoded(run.files.image(adapter, prompt_id, pair["seed"])) if pair["drawn"] else base
    return Pair(prompt_id, adapter, pair["seed"], cell | pair | {"prompt": text}, base, adapted)


def _prompt(run: Run, given: str) -> tuple[str, str]:
    prompts = run.cells.select("prompt_id", "prompt").unique().sort("prompt_id").rows()
    exact = [p for p in prompts if p[0] == given] or [p for p in prompts if p[1] == given]
    words = given.strip().lower()
    found = exact or [p for p in prompts if words and words in p[1].lower()]
    where = f"prompt {cut(given)!r}"
    if not found:
        raise InputError(where, "is not in this run", "give an id such as p000, or words that only one prompt contains")
    if len(found) > 1:
        listed = ", ".join(f"{key} ({cut(text)})" for key, text in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise InputError(where, f"matches {len(found)} prompts: {listed}{more}", "give the id of one")
    return found[0]


def composed(pair: Pair) -> bytes:
    """Return base, adapted and difference side by side as a PNG, each below its name."""
    panels = {"base": pair.base, "adapted": pair.adapted, f"difference, {GAIN}x": difference(pair.base, pair.adapted)}
    factor = max(1, -(-SMALLEST // min(pair.base.size)))
    width, height = (side * factor for side in pair.base.size)
    sheet = Image.new("RGB", (3 * width + 4 * GAP, height + BAND + 2 * GAP), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for k, (name, panel) in enumerate(panels.items()):
        left = GAP + k * (width + GAP)
        pen.text((left, GAP), name, fill="black", font=font)
        sheet.paste(panel.resize((width, height), Image.Resampling.NEAREST), (left, GAP + BAND))
    data = io.BytesIO()
    sheet.save(data, format="PNG")
    return data.getvalue()


def default_path(run: Run, pair: Pair) -> Path:
    """Return where the image is written by default; other characters than those of file names are replaced.

    Names that were changed get a digest, so they stay distinct.
    """
    name = f"{pair.prompt_id}-{pair.adapter}"
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:100]
    if plain != name:
        plain += f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return run.files.report.parent / "pairs" / f"{plain}.png"
