"""What a report shows of attention: where it shifts, by layer and timestep, and where single words look."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from PIL import Image

from raymap.analysis.read import KEY
from raymap.analysis.why.statistics import AttentionSummary
from raymap.display.text import cut
from raymap.plan.blocks import BASE
from raymap.report.images import decoded, kept_images
from raymap.results import Run
from raymap.study.methods.method import CONTROL

CELLS = 6
"""How many cells' words are shown: the most shifted ones, one per prompt, with at most WORDS words each."""
WORDS = 8
DPI = 90
SIDE = 16
"""How many positions the maps of words have per side (raymap.drawing.attention.heat)."""
TITLES = {"free": "own trajectory", "forced": "on the base's latents"}


@dataclass(frozen=True)
class Shown:
    """An image in the page, as a data URL, and what it shows in words."""

    url: str
    prompt: str
    adapter: str
    seed: int
    words: tuple[str, ...]


def moved(attention: AttentionSummary) -> list[str]:
    """Return the adapters whose attention differs from the base's for some prompt, in the order of Table 3."""
    rows = attention["table_3"]
    return [name for name in rows[0]["delta_e4"] if any(row["delta_e4"].get(name) for row in rows)] if rows else []


def layer_plot(attention: AttentionSummary) -> str | None:
    """Draw the Jensen-Shannon divergence (bits, all tokens) by layer and timestep, one panel per method and protocol.

    Returns:
        A data URL; None if no method shifts attention.
    """
    rows = pl.DataFrame(attention.get("layers", []))
    if rows.is_empty():
        return None
    whole = rows.group_by("method", "protocol", "layer", "bin", "timestep", maintain_order=True).agg(pl.col("js").sum())
    panels = [p for p in whole.partition_by("method", "protocol", maintain_order=True) if p["js"].max() > 0]  # type: ignore[operator]
    panels = [p for p in panels if p["method"][0] != CONTROL]
    if not panels:
        return None
    layers = whole["layer"].unique(maintain_order=True).to_list()
    top = max(float(panel["js"].max()) for panel in panels)  # type: ignore[arg-type]
    figure = Figure(figsize=(2.2 + 1.9 * len(panels), 1.3 + 0.24 * len(layers)), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, panel in zip(axes, panels, strict=True):
        grid = panel.pivot("bin", index="layer", values="js", maintain_order=True)
        image = ax.imshow(grid.drop("layer").to_numpy(), vmin=0, vmax=top, cmap="viridis", aspect="auto")
        times = panel.unique("bin", maintain_order=True)["timestep"]
        ax.set_xticks(range(len(times)), [f"{t:.0f}" for t in times], fontsize=7)
        ax.set_title(f"{panel['method'][0]}\n{TITLES[panel['protocol'][0]]}", fontsize=8)
        ax.set_xlabel("timestep", fontsize=8)
    axes[0].set_yticks(range(len(layers)), [short_layer(name) for name in layers], fontsize=7)
    figure.colorbar(image, ax=axes, label="bits")
    return _url(figure)


def short_layer(name: str) -> str:
    """Return a layer's name as its block and number: `down 0.0`, `mid`, `up 1.2`."""
    parts = name.replace("_blocks", "").replace("_block", "").split(".")
    numbers = [part for part in parts[1:4] if part.isdecimal()]
    return parts[0] if parts[0] == "mid" else f"{parts[0]} {'.'.join(numbers)}"


def word_maps(run: Run) -> list[Shown]:
    """Draw where each word of a prompt is looked for, over the base's image and over the adapted one.

    The cells are those with the largest E_sem whose images of the maps' seed are kept. The two maps of a word have the
    same scale.

    Raises:
        InputError: a kept image cannot be read.
    """
    path = run.folder / "attention_tokens.arrow"
    if not run.attention or not path.exists():
        return []
    maps = pl.read_ipc(path.read_bytes())
    kept = kept_images(run.folder)
    base = kept.filter(pl.col("adapter") == BASE).select("prompt_id", "seed")
    cells = (
        maps.select(*KEY, "seed").unique()
        .join(kept, on=(*KEY, "seed"), how="semi").join(base, on=("prompt_id", "seed"), how="semi")
        .join(run.others.select(*KEY, "prompt", "e_sem"), on=KEY)
        .sort("e_sem", *KEY, "seed", descending=[True, False, False, False], nulls_last=True)
        .unique("prompt_id", keep="first", maintain_order=True)
        .head(CELLS)
    )  # fmt: skip
    return [_shown(run, cell, maps) for cell in cells.iter_rows(named=True)]


def _shown(run: Run, cell: dict[str, Any], maps: pl.DataFrame) -> Shown:
    of = pl.all_horizontal(pl.col(key) == cell[key] for key in (*KEY, "seed"))
    rows = maps.filter(of).sort("position").head(WORDS).to_dicts()
    words = tuple(row["token"].removesuffix("</w>") for row in rows)
    images = [decoded(run.files.image(name, cell["prompt_id"], cell["seed"])) for name in (BASE, cell["adapter"])]
    figure = Figure(figsize=(0.5 + 1.1 * (1 + len(rows)), 2.5), layout="constrained")
    axes = figure.subplots(2, 1 + len(rows), squeeze=False)
    for line, (name, image) in enumerate(zip(("base", "adapted"), images, strict=True)):
        axes[line, 0].imshow(image)
        axes[line, 0].set_ylabel(name, fontsize=8)
        for column, row in enumerate(rows, 1):
            top = max(*row["base"], *row["adapted"])
            heat = np.asarray(row[name], dtype=np.float32).reshape(SIDE, SIDE)
            axes[line, column].imshow(_overlaid(image, heat / top if top else heat))
    for column, word in enumerate(words, 1):
        axes[0, column].set_title(cut(word, 14), fontsize=8, parse_math=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return Shown(_url(figure), cell["prompt"], cell["adapter"], cell["seed"], words)


def _overlaid(image: Image.Image, heat: np.ndarray) -> np.ndarray:
    """Return an image in grey, float (H, W, 3) in [0, 1], with a map of values in [0, 1] over it in red."""
    gray = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    scaled = Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR)
    share = np.asarray(scaled).clip(0, 1)[..., None]
    red: np.ndarray = (1 - share) * gray + share * np.array([0.86, 0.1, 0.1], dtype=np.float32)
    return red


def _url(figure: Figure) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="webp", dpi=DPI)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
