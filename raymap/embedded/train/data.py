"""Training pictures: rendered once by all cores, kept in one file a split."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from raymap.embedded.world.captioned import Picture, dead_leaves, sample

SEED = 20_261
CHUNK = 500


@dataclass(frozen=True)
class Split:
    """Pictures uint8 (N, 64, 64, 3), their captions (N) and their labels joined by '|' (N)."""

    pixels: np.ndarray
    captions: np.ndarray
    labels: np.ndarray


def _chunk(args: tuple[int, int, bool]) -> tuple[np.ndarray, list[str], list[str]]:
    seed, n, held = args
    rng = np.random.default_rng((SEED, seed))
    pictures = [sample(rng, held=held) for _ in range(n)]
    pixels = np.stack([p.render(rng) for p in pictures])
    return pixels, [p.caption for p in pictures], ["|".join(x for x in p.labels if x) for p in pictures]


def render(n: int, held: bool, first_seed: int) -> Split:
    """Render `n` pictures (a multiple of 500) of training or of held-out captions."""
    jobs = [(first_seed + k, CHUNK, held) for k in range(n // CHUNK)]
    with ProcessPoolExecutor() as pool:
        parts = list(track(pool.map(_chunk, jobs), "rendering the world", total=len(jobs)))
    pixels = np.concatenate([p for p, _, _ in parts])
    return Split(
        pixels,
        np.array([c for _, captions, _ in parts for c in captions]),
        np.array([x for _, _, labels in parts for x in labels]),
    )


def load(folder: Path, name: str, n: int) -> Split:
    """Return the split `name` ("train" or "held_out"), rendering it into `folder` when it isn't there yet."""
    path = folder / f"{name}-{n}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        held = name == "held_out"
        split = render(n, held, first_seed=1_000_000 if held else 0)
        np.savez(path, pixels=split.pixels, captions=split.captions, labels=split.labels)
        return split
    with np.load(path) as file:
        return Split(file["pixels"], file["captions"], file["labels"])


def leaves(n: int, seed: int) -> np.ndarray:
    """Return `n` dead-leaves pictures, uint8 (n, 64, 64, 3)."""
    rng = np.random.default_rng((SEED, seed))
    return np.stack([dead_leaves(rng) for _ in track(range(n), "rendering dead leaves")])


def pictures(category: str | None, n: int, seed: int, held: bool | None) -> list[Picture]:
    """Return `n` pictures from the grammar, the same for the same arguments."""
    rng = np.random.default_rng((SEED, seed))
    return [sample(rng, category, held) for _ in range(n)]
