"""The images that are embedded in the page: small, each once, those of the worst cells first, within a budget."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from PIL import Image

from raymap.analysis.read import KEY
from raymap.plan.blocks import BASE
from raymap.report.images import chosen_pairs, decoded
from raymap.results import Run
from raymap.store.files import read_each

BUDGET = 15 * 2**20
"""How many bytes all embedded images may take; base64 makes 21 MB of them."""
SIDES = (128, 96)
"""The longest side in pixels: the larger one if all images fit the budget with it, else the smaller one."""
BITS_PER_PIXEL = 4
"""About the most that a lossy WebP of a detailed image takes; it only decides between SIDES."""
LOSSY = {"quality": 75, "method": 4}
LOSSLESS = {"quality": 25, "method": 1}
"""Without loss, quality means effort: more of it takes 20 times as long and saves 1 %."""
AT_ONCE = 128
"""How many pairs are read and encoded at a time."""

Name = tuple[str, str, int]
"""Adapter or BASE, prompt id, and seed of an image."""
Pair = tuple[Name, Name]


@dataclass(frozen=True)
class Encoding:
    """How images are embedded: as WebP of at most `side` pixels, losslessly if all of them fit as they are."""

    side: int
    lossless: bool

    def __call__(self, path: Path, content: bytes | None) -> bytes:
        image = decoded(path, content)
        image.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        effort = LOSSLESS if self.lossless else LOSSY
        image.save(data, format="WEBP", lossless=self.lossless, **effort)
        return data.getvalue()


@dataclass(frozen=True)
class Gallery:
    """The embedded images, and which cell shows which of them.

    `images` are base64 of WebP. `pairs` holds the chosen seed of every cell whose images are kept, and the positions of
    its `base` and `adapted` image in `images`; these are null if the budget was spent on worse cells.
    """

    images: tuple[str, ...]
    pairs: pl.DataFrame
    encoding: Encoding | None

    def url(self, position: int) -> str:
        """Return one image as a data URL."""
        return f"data:image/webp;base64,{self.images[position]}"


def gallery(run: Run, budget: int = BUDGET) -> Gallery:
    """Embed the pairs of as many cells as the budget allows, those with the largest E first.

    Raises:
        InputError: a kept image cannot be read.
    """
    worst = run.cells.select(*KEY, "entanglement", "e_per").sort(
        "entanglement", "e_per", *KEY, descending=[True, True, False, False], nulls_last=True
    )
    pairs = worst.join(chosen_pairs(run), on=KEY, how="inner", maintain_order="left")
    wanted = [_names(row) for row in pairs.iter_rows(named=True)]
    encoding = _encoding(run, wanted, budget) if wanted else None
    images = _embedded(run, wanted, encoding, budget) if encoding else {}
    at = {name: k for k, name in enumerate(images)}
    shown = [tuple(at[name] if set(pair) <= at.keys() else None for name in pair) for pair in wanted]
    columns = [pl.Series(name, [pair[k] for pair in shown], pl.Int64) for k, name in enumerate(("base", "adapted"))]
    texts = tuple(base64.b64encode(image).decode() for image in images.values())
    return Gallery(texts, pairs.with_columns(columns), encoding)


def _embedded(run: Run, wanted: list[Pair], encoding: Encoding, budget: int) -> dict[Name, bytes]:
    """Return encoded images, pair after pair, until a pair does not fit the budget any more."""
    images: dict[Name, bytes] = {}
    spent = 0
    for start in range(0, len(wanted), AT_ONCE):
        batch = wanted[start : start + AT_ONCE]
        fresh = [name for name in dict.fromkeys(name for pair in batch for name in pair) if name not in images]
        encoded = dict(zip(fresh, _encoded(run, fresh, encoding), strict=True))
        for pair in batch:
            new = {name: encoded[name] for name in pair if name not in images}
            spent += sum(len(image) for image in new.values())
            if spent > budget:
                return images
            images |= new
    return images


def _names(row: dict[str, object]) -> Pair:
    prompt, seed = str(row["prompt_id"]), int(str(row["seed"]))
    base = (BASE, prompt, seed)
    return base, (str(row["adapter"]), prompt, seed) if row["drawn"] else base


def _encoding(run: Run, wanted: list[Pair], budget: int) -> Encoding:
    width, height = decoded(run.files.image(*wanted[0][0])).size
    count = len({name for pair in wanted for name in pair})
    for side in SIDES:
        shrunk = min(1.0, side / max(width, height))
        pixels = width * height * shrunk**2 * count
        if shrunk == 1.0 and 3 * pixels <= budget:
            return Encoding(side, lossless=True)
        if pixels * BITS_PER_PIXEL / 8 <= budget:
            return Encoding(side, lossless=False)
    return Encoding(SIDES[-1], lossless=False)


def _encoded(run: Run, names: list[Name], encoding: Encoding) -> list[bytes]:
    paths = [run.files.image(*name) for name in names]
    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock
        return list(pool.map(encoding, paths, read_each(paths)))
