"""The training images: rendered once, on all cores, and kept in one file per split."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from raymap.embedded.world.captioned import Motif, dead_leaves, sample

SEED = 20_261
CHUNK = 500


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, 64, 64, 3), with their captions (N,) and their labels, joined by '|' (N,)."""

    pixels: np.ndarray
    captions: np.ndarray
    labels: np.ndarray


def _chunk(args: tuple[int, int, bool]) -> tuple[np.ndarray, list[str], list[str]]:
    seed, n, held_out = args
    rng = np.random.default_rng((SEED, seed))
    chosen = [sample(rng, held_out=held_out) for _ in range(n)]
    pixels = np.stack([motif.render(rng) for motif in chosen])
    return pixels, [motif.caption for motif in chosen], ["|".join(x for x in motif.labels if x) for motif in chosen]


def render(n: int, held_out: bool, first_seed: int) -> Split:
    """Render `n` images (a multiple of 500) of training captions, or of held-out ones."""
    jobs = [(first_seed + k, CHUNK, held_out) for k in range(n // CHUNK)]
    with ProcessPoolExecutor() as pool:
        parts = list(track(pool.map(_chunk, jobs), "rendering the world", total=len(jobs)))
    pixels = np.concatenate([p for p, _, _ in parts])
    return Split(
        pixels,
        np.array([c for _, captions, _ in parts for c in captions]),
        np.array([x for _, _, labels in parts for x in labels]),
    )


def load(folder: Path, name: str, n: int) -> Split:
    """Return the split `name` ("train" or "held_out") of `n` images; the first time it is rendered into `folder`."""
    path = folder / f"{name}-{n}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        held_out = name == "held_out"
        split = render(n, held_out, first_seed=1_000_000 if held_out else 0)
        np.savez(path, pixels=split.pixels, captions=split.captions, labels=split.labels)
        return split
    with np.load(path) as file:
        return Split(file["pixels"], file["captions"], file["labels"])


def dead_leaves_images(n: int, seed: int) -> np.ndarray:
    """Return `n` dead-leaves images, uint8 (n, 64, 64, 3)."""
    rng = np.random.default_rng((SEED, seed))
    return np.stack([dead_leaves(rng) for _ in track(range(n), "rendering dead leaves")])


def motifs(category: str | None, n: int, seed: int, held_out: bool | None) -> list[Motif]:
    """Return `n` motifs from the grammars (arguments as of `sample`); equal arguments give equal motifs."""
    rng = np.random.default_rng((SEED, seed))
    return [sample(rng, category, held_out) for _ in range(n)]
