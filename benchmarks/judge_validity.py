"""Checks what a CLIP score falls for: edits that change an image's meaning, against changes that do not.

    python -m benchmarks.judge_validity [--captions 500] [--clip embedded local-dir:FOLDER …] [--sheet worst.png]

Held-out captions of people, animals and objects are rendered by the world and drawn by an embedded base. Each image is
edited so that its meaning changes. A slab covers the middle half or the middle third of both sides, in the mean colour
of the border, so that no new colour gives it away; or the subject is removed, replaced by another one, or has another
colour; in renders a blob replaces it, too. Each image is also changed so that its meaning stays: noise of 4/255, a blur
of .6 pixels, 6 % more brightness, a shift by 2 pixels, JPEG of quality 60, and another seed.

The first table has the share of all pairs of an edit and a harmless change, within one category, in which the score
falls more for the edit. The second one has the median fall for a removed subject, and how far categories differ in it.
Drawings show what a caption says only as well as the base can draw it.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import rankdata

from benchmarks.embedded_quality import contact_sheet, draw_captions
from raymap.base.pipeline import load
from raymap.embedded.model import PIPELINE
from raymap.embedded.train.data import motifs
from raymap.embedded.world.description import Description, describe
from raymap.embedded.world.misses import Miss, misses
from raymap.scoring.clip import ClipScorer
from raymap.study.model import SamplerSettings

CATEGORIES = ("people", "animals", "objects")
ASKED = {"half covered": 0.99, "third covered": 0.96}
WORST = 100


def noise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white noise with a standard deviation of 4 grey values."""
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).round().astype(np.uint8)


def blur(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian with a standard deviation of .6 pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.6)))


def brighter(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply by 1.06."""
    return np.clip(pixels * 1.06, 0, 255).round().astype(np.uint8)


def shifted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move by 2 pixels to a random side, repeating the border."""
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge")
    y, x = ((0, 2), (4, 2), (2, 0), (2, 4))[int(rng.integers(4))]
    return padded[y : y + pixels.shape[0], x : x + pixels.shape[1]]


def jpeg(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress with JPEG's quality 60."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


HARMLESS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": noise,
    "blur": blur,
    "brightness": brighter,
    "shift": shifted,
    "JPEG": jpeg,
}


def slab(pixels: np.ndarray, share: float) -> np.ndarray:
    """Cover the middle of an image, `share` of each side, with the mean colour of its border."""
    covered = pixels.copy()
    height, width = pixels.shape[:2]
    top, left = (round(side * (1 - share) / 2) for side in (height, width))
    border = np.concatenate([pixels[:4].reshape(-1, 3), pixels[:, :4].reshape(-1, 3), pixels[:, -4:].reshape(-1, 3)])
    covered[top : height - top, left : width - left] = border.mean(0).round()
    return covered


def without_middle(pixels: np.ndarray) -> np.ndarray:
    """Fill all columns but those at the sides from these: places of the world look much the same from left to right."""
    side = pixels.shape[1] // 16
    left, right = pixels[:, :side].mean(1), pixels[:, -side:].mean(1)
    share = np.linspace(0, 1, pixels.shape[1] - 2 * side)[None, :, None]
    filled = pixels.copy()
    filled[:, side:-side] = (left[:, None] * (1 - share) + right[:, None] * share).round().astype(np.uint8)
    return filled


@dataclass(frozen=True)
class Material:
    """Images of N captions, each uint8 (N, 64, 64, 3): as they are, edited, and changed without harm."""

    own: np.ndarray
    edited: dict[str, np.ndarray]
    harmless: dict[str, np.ndarray]


def _material(own: np.ndarray, other: np.ndarray, edited: dict[str, np.ndarray], rng: np.random.Generator) -> Material:
    slabs = {name: np.stack([slab(x, s) for x in own]) for name, s in zip(ASKED, (1 / 2, 1 / 3), strict=True)}
    harmless = {name: np.stack([change(x, rng) for x in own]) for name, change in HARMLESS.items()}
    return Material(own, slabs | edited, harmless | {"other seed": other})


def near(descriptions: Sequence[Description], kind: str, rng: np.random.Generator) -> list[Miss]:
    """Return each description's near miss of one kind; a person whose shirt is unsaid gets another place instead."""
    found = [{m.kind: m for m in misses(d, rng)} for d in descriptions]
    return [options.get(kind) or options["place"] for options in found]


def rendered(descriptions: Sequence[Description]) -> Material:
    """Render all captions, their edits with the same layout."""
    rng = np.random.default_rng(4)
    own, other = (np.stack([d.render(k + first) for k, d in enumerate(descriptions)]) for first in (0, 1_000_000))
    edited = {
        kind: np.stack([m.description.render(k, m.subject) for k, m in enumerate(near(descriptions, kind, rng))])
        for kind in ("removed", "blob", "subject", "color")
    }
    return _material(own, other, edited, rng)


def drawn(descriptions: Sequence[Description], sampler: SamplerSettings) -> Material:
    """Draw all captions with a base; near misses have captions and are drawn from the same noise."""
    rng = np.random.default_rng(5)
    pipeline = load(PIPELINE)
    captions = [d.caption for d in descriptions]
    own = draw_captions(pipeline, captions, sampler)
    other = draw_captions(pipeline, [captions[0], *captions], sampler)[1:]  # each from the next image's noise
    edited = {"removed": np.stack([without_middle(x) for x in own])}
    edited |= {
        kind: draw_captions(pipeline, [m.caption for m in near(descriptions, kind, rng)], sampler)
        for kind in ("subject", "color")
    }
    return _material(own, other, edited, rng)


def falls(clip: ClipScorer, captions: list[str], material: Material) -> tuple[dict[str, np.ndarray], ...]:
    """Return by how much the score falls from each image to its edits and to its harmless changes."""

    def cosines(pixels: np.ndarray) -> np.ndarray:
        features = [clip.image_features(pixels[k : k + 100]) for k in range(0, len(pixels), 100)]
        return np.concatenate([clip.cosines(captions[100 * k :][:100], f) for k, f in enumerate(features)])

    own = cosines(material.own)
    edited, harmless = (
        {name: own - cosines(pixels) for name, pixels in track(images.items(), "scoring")}
        for images in (material.edited, material.harmless)
    )
    return edited, harmless


def share_above(edited: np.ndarray, harmless: np.ndarray) -> float:
    """Return the share of pairs in which the first falls more; ties count half (the area under the ROC curve)."""
    n, m = len(edited), len(harmless)
    return float((rankdata(np.concatenate([edited, harmless]))[:n].sum() - n * (n + 1) / 2) / (n * m))


Falls = dict[str, np.ndarray]


def tables(judge: str, source: str, categories: np.ndarray, edited: Falls, harmless: Falls) -> list[Table]:
    """Return the two tables of a judge on one source of images."""
    pairs = Table(title=f"{judge}, {source}: the edit falls more than a harmless change, share of pairs")
    medians = Table(title=f"{judge}, {source}: median fall")
    for table in (pairs, medians):
        table.add_column("change")
        for column in (*CATEGORIES, "asked" if table is pairs else "largest / smallest"):
            table.add_column(column, justify="right")
    for name, values in edited.items():
        by = [values[categories == c] for c in CATEGORIES]
        still = [np.concatenate([v[categories == c] for v in harmless.values()]) for c in CATEGORIES]
        shares = [share_above(fall, rest) for fall, rest in zip(by, still, strict=True)]
        pairs.add_row(name, *(f"{x:.1%}" for x in shares), f"{ASKED[name]:.0%}" if name in ASKED else "")
    for name, values in (*edited.items(), *harmless.items()):
        middle = [float(np.median(values[categories == c])) for c in CATEGORIES]
        ratio = f"{max(middle) / min(middle):.1f}" if name in edited and min(middle) > 0 else ""
        medians.add_row(name, *(f"{x:.3f}" for x in middle), ratio)
    return [pairs, medians]


def worst(material: Material, edited: dict[str, np.ndarray]) -> np.ndarray:
    """Return the covered images that the score fell least for, each beside its original, uint8 (2 * WORST, …)."""
    options = [(fall, name, k) for name in (*ASKED, "removed") for k, fall in enumerate(edited[name])]
    chosen = sorted(options)[:WORST]
    return np.stack([x for _, name, k in chosen for x in (material.own[k], material.edited[name][k])])


def main() -> None:
    """Print the tables of each judge and, with --sheet, save the worst errors of the last one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=500, help="number of held-out captions")
    parser.add_argument("--clip", nargs="+", default=["embedded"], help="judges: embedded, or local-dir:FOLDER")
    parser.add_argument("--steps", type=int, default=SamplerSettings().steps, help="sampling steps of drawn images")
    parser.add_argument("--no-drawn", action="store_true", help="rendered images alone")
    parser.add_argument("--sheet", type=Path, help="path of a contact sheet; the source's name is put before it")
    args = parser.parse_args()
    share = -(-args.captions // len(CATEGORIES))
    chosen = [m for k, c in enumerate(CATEGORIES) for m in motifs(c, share, seed=700 + k, held_out=True)]
    categories = np.array([m.category for m in chosen])
    descriptions = [describe(m.caption) for m in chosen]
    sources = {"rendered": rendered(descriptions)}
    if not args.no_drawn:
        sources["drawn"] = drawn(descriptions, SamplerSettings(steps=args.steps))
    console = Console(width=110)
    for judge in args.clip:
        clip = ClipScorer(judge)
        for source, material in sources.items():
            edited, harmless = falls(clip, [d.caption for d in descriptions], material)
            for table in tables(judge, source, categories, edited, harmless):
                console.print(table)
            if args.sheet:
                contact_sheet(worst(material, edited), 20, args.sheet.with_name(f"{source}-{args.sheet.name}"))


if __name__ == "__main__":
    main()
