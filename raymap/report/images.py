"""Chooses the pair of kept images that represents a cell: that of the seed whose image changed most."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from raymap.analysis.read import KEY
from raymap.errors import InputError
from raymap.results import Run
from raymap.store.files import read_file
from raymap.study.adapter import BASE

GAIN = 3
"""The factor by which difference views amplify |adapted − base|; what exceeds white is clipped."""


def kept_images(root: Path) -> pl.DataFrame:
    """Return the kept images: `adapter`, `prompt_id` and `seed`, as their folders and files are named."""
    paths = (root / "images").glob("*/*/*.png")
    found = [(p.parent.parent.name, p.parent.name, int(p.stem)) for p in paths if p.stem.lstrip("-").isdecimal()]
    return pl.DataFrame(found, schema={"adapter": pl.String, "prompt_id": pl.String, "seed": pl.Int64}, orient="row")


def chosen_pairs(run: Run) -> pl.DataFrame:
    """Return the seed with the largest LPIPS for every cell of which both images are kept.

    Returns:
        `prompt_id`, `adapter`, `seed`, `clip_base`, `clip_adapted`, `lpips` and `drawn`. Where `drawn` is false, the
        adapted image is the base's own by proof, and only the base's image is kept.
    """
    kept = kept_images(run.folder)
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
    """Return a kept image in RGB.

    Args:
        content: the bytes of the file, if it has been read already.

    Raises:
        InputError: it is not an image.
    """
    try:
        with Image.open(io.BytesIO(read_file(path) if content is None else content)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow raises the latter for some broken PNG files
        raise InputError(str(path), f"is not an image ({error})", "delete it and run the study again") from error


def difference(base: Image.Image, adapted: Image.Image) -> Image.Image:
    """Return |adapted − base| times GAIN, clipped to 255, channel by channel."""
    one, other = (np.asarray(image, dtype=np.int16) for image in (base, adapted))
    return Image.fromarray(np.minimum(np.abs(other - one) * GAIN, 255).astype(np.uint8))
