"""Measures how well an embedded base draws what held-out captions say, by judges with and without learned parts.

    python -m benchmarks.embedded_quality [--base embedded] [--captions 300] [--sheet sheet.png]

The table also has the figures of images that the world renders for the same captions: the ceiling of each judge.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from diffusers import DiffusionPipeline
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from raymap.base.folder import resolve
from raymap.base.pipeline import load, usual_sampler
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINES
from raymap.embedded.train.data import motifs
from raymap.embedded.world.captioned import CATEGORIES, HUES, Motif, scenes
from raymap.embedded.world.pen import PALETTE
from raymap.scoring.clip import ClipScorer
from raymap.study.model import SamplerSettings

BATCH = 20
CHOICES = 10
GRID = 8
TEMPLATE_RENDERS = 16


def draw_captions(pipeline: DiffusionPipeline, captions: list[str], sampler: SamplerSettings) -> np.ndarray:
    """Draw one image per caption, uint8 (N, 64, 64, 3), with the seeds 0 to N - 1."""
    encoder = PromptEncoder(pipeline)
    parts = []
    for k in track(range(0, len(captions), BATCH), "drawing"):
        chunk = captions[k : k + BATCH]
        parts.append(draw(pipeline, encoder, chunk, tuple(range(k, k + len(chunk))), sampler, BATCH))
    return np.concatenate(parts)


def rivals(names: list[str], rng: np.random.Generator) -> list[np.ndarray]:
    """Return, for each name, the positions of nine random names that differ from it."""
    return [
        rng.choice([j for j, other in enumerate(names) if other != name], CHOICES - 1, replace=False) for name in names
    ]


def matched_by_clip(clip: ClipScorer, pixels: np.ndarray, captions: list[str]) -> np.ndarray:
    """Return whether each image's own caption scores highest among ten, bool (N,)."""
    cosines = (clip.image_features(pixels) @ clip.text_features(captions).T).numpy()
    others = rivals(captions, np.random.default_rng(0))
    return np.array([cosines[k, k] > cosines[k, rest].max() for k, rest in enumerate(others)])


def dominant_hue(pixels: np.ndarray) -> str:
    """Return the hue of the palette that most vivid pixels are nearest to; empty where no pixel is vivid."""
    hsv = np.asarray(Image.fromarray(pixels).convert("HSV")).reshape(-1, 3).astype(float) / 255
    vivid = pixels.reshape(-1, 3)[(hsv[:, 1] > 0.35) & (hsv[:, 2] > 0.25)].astype(float)
    if not len(vivid):
        return ""
    shades = [np.array(PALETTE[h], float) * f for h in HUES for f in (1.0, 0.8)]
    nearest = np.linalg.norm(vivid[:, None] - np.array(shades), axis=-1).argmin(1) // 2
    return HUES[int(np.bincount(nearest, minlength=len(HUES)).argmax())]


def coarse(pixels: np.ndarray) -> np.ndarray:
    """Return an image's layout: its mean colour on an 8x8 grid, centred, float (192,)."""
    side = pixels.shape[0] // GRID
    grid = pixels.reshape(GRID, side, GRID, side, 3).mean((1, 3)).ravel()
    return grid - grid.mean()


def matched_by_layout(pixels: np.ndarray, views: list[Motif]) -> np.ndarray:
    """Return whether each scene correlates best with the mean render of its own caption, among ten."""
    rng = np.random.default_rng(1)
    templates = [np.mean([coarse(m.render(rng)) for _ in range(TEMPLATE_RENDERS)], 0) for m in views]
    captions = [m.caption for m in views]
    hits = []
    for k, rest in enumerate(rivals(captions, rng)):
        own = coarse(pixels[k])
        scores = [np.corrcoef(own, templates[j])[0, 1] for j in (k, *rest)]
        hits.append(int(np.argmax(scores)) == 0)
    return np.array(hits)


def plain_scenes(n: int) -> list[Motif]:
    """Return `n` different scenes without a figure in them, of either split: too few are held out."""
    rng = np.random.default_rng(2)
    chosen: dict[str, Motif] = {}
    while len(chosen) < n:
        motif = scenes(rng)
        if " with " not in motif.caption:
            chosen.setdefault(motif.caption, motif)
    return list(chosen.values())


def contact_sheet(pixels: np.ndarray, columns: int, path: Path) -> None:
    """Save images side by side, `columns` in a row, in one image, magnified twice."""
    rows = [np.concatenate(list(pixels[k : k + columns]), 1) for k in range(0, len(pixels), columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Print the figures and, with --sheet, save a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", choices=list(PIPELINES), default="embedded")
    parser.add_argument("--captions", type=int, default=300, help="number of held-out captions")
    parser.add_argument("--steps", type=int, help="by default those of a study")
    parser.add_argument("--guidance-scale", type=float, help="by default that of a study")
    parser.add_argument("--sheet", type=Path, help="path of a contact sheet of drawn images")
    args = parser.parse_args()
    pipeline = load(resolve(args.base))
    usual = usual_sampler(pipeline)
    sampler = SamplerSettings(
        steps=args.steps or usual.steps, guidance_scale=args.guidance_scale or usual.guidance_scale
    )
    per_category = args.captions // len(CATEGORIES)
    mixed = [m for k, c in enumerate(CATEGORIES) for m in motifs(c, per_category, seed=900 + k, held_out=True)]
    colored = [m for m in motifs("objects", 8 * args.captions, seed=950, held_out=True) if m.hue][: args.captions // 3]
    views = plain_scenes(min(40, args.captions))
    everything = [*mixed, *colored, *views]
    start = time.perf_counter()
    pixels = draw_captions(pipeline, [motif.caption for motif in everything], sampler)
    seconds = time.perf_counter() - start
    rng = np.random.default_rng(3)
    rendered = np.stack([motif.render(rng) for motif in everything])
    clip = ClipScorer("embedded")
    a, b = len(mixed), len(mixed) + len(colored)
    judges: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"own caption among {CHOICES}, embedded CLIP": lambda x: matched_by_clip(
            clip, x[:a], [motif.caption for motif in mixed]
        ),
        "named colour is the dominant one": lambda x: np.array(
            [dominant_hue(image) == motif.hue for image, motif in zip(x[a:b], colored, strict=True)]
        ),
        f"scene layout among {CHOICES}, correlation": lambda x: matched_by_layout(x[b:], views),
    }
    table = Table(
        title=f"{args.base}, {len(everything)} images, {sampler.steps} steps, guidance {sampler.guidance_scale}"
    )
    for name in ("judge", "images", "drawn", "rendered (ceiling)"):
        table.add_column(name)
    console = Console(width=110)
    for name, judge in judges.items():
        ours, ceiling = judge(pixels), judge(rendered)
        table.add_row(name, str(len(ours)), f"{ours.mean():.1%}", f"{ceiling.mean():.1%}")
        if "CLIP" in name:
            for k, category in enumerate(CATEGORIES):
                part = slice(k * per_category, (k + 1) * per_category)
                table.add_row(
                    f"  {category}", str(per_category), f"{ours[part].mean():.1%}", f"{ceiling[part].mean():.1%}"
                )
    console.print(table)
    console.print(f"{len(everything) / seconds:.2f} images/s in batches of {BATCH}")
    if args.sheet:
        step = max(1, per_category // 10)
        chosen = [k * per_category + j * step for k in range(len(CATEGORIES)) for j in range(10)]
        contact_sheet(pixels[chosen], 10, args.sheet)


if __name__ == "__main__":
    main()
