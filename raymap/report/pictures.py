"""Which pair of pictures stands for a cell: kept ones, of the seed whose picture moved most."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from raymap.analysis.read import KEY
from raymap.errors import InputError
from raymap.plan.blocks import BASE
from raymap.report.source import Run

GAIN = 3
"""Difference views show |adapted − base| times so much, clipped."""


def kept_pictures(root: Path) -> pl.DataFrame:
    """Return what lies in images/: `adapter`, `prompt_id`, `seed`. Names are those of folders, never paths."""
    paths = (root / "images").glob("*/*/*.png")
    found = [(p.parent.parent.name, p.parent.name, int(p.stem)) for p in paths if p.stem.lstrip("-").isdecimal()]
    return pl.DataFrame(found, schema={"adapter": pl.String, "prompt_id": pl.String, "seed": pl.Int64}, orient="row")


def chosen_pairs(run: Run) -> pl.DataFrame:
    """Return, for every cell of which both pictures are kept, the seed with the largest LPIPS.

    Returns:
        `prompt_id`, `adapter`, `seed`, `clip_base`, `clip_adapted`, `lpips`, `drawn`; where `drawn` is false the
        adapted picture is the base's own by proof, and only that is kept.
    """
    kept = kept_pictures(run.folder.root)
    base = kept.filter(pl.col("adapter") == BASE).select("prompt_id", "seed")
    rows = run.scores.join(base, on=("prompt_id", "seed"), how="semi")
    drawn = rows.filter("drawn").join(kept, on=("adapter", "prompt_id", "seed"), how="semi")
    return (
        pl.concat([drawn, rows.filter(~pl.col("drawn"))])
        .sort("lpips", "seed", descending=[True, False], nulls_last=True)
        .unique(KEY, keep="first", maintain_order=True)
        .select(*KEY, "seed", "clip_base", "clip_adapted", "lpips", "drawn")
        .sort(*KEY)
    )


def decoded(path: Path, content: bytes | None = None) -> Image.Image:
    """Return a kept picture in RGB; `content` is the file's, where it was read already.

    Raises:
        InputError: it is no picture.
    """
    try:
        with Image.open(io.BytesIO(path.read_bytes() if content is None else content)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow raises the latter for some broken PNG files
        raise InputError(str(path), f"is no picture ({error})", "delete it, and run the study again") from error


def difference(base: Image.Image, adapted: Image.Image) -> Image.Image:
    """Return |adapted − base| times GAIN, clipped to 255, channel by channel."""
    one, other = (np.asarray(image, dtype=np.int16) for image in (base, adapted))
    return Image.fromarray(np.minimum(np.abs(other - one) * GAIN, 255).astype(np.uint8))
