"""Scores batches: pixels go in (a read-only view of shared memory), Arrow rows come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raymap.errors import DrawingError
from raymap.plan import BASE, AdapterInfo, Block, Item
from raymap.scoring.clip import ClipScorer
from raymap.scoring.perceptual import LpipsScorer
from raymap.store.folder import RunFolder, pixel_digest
from raymap.store.schema import NOISE, SCORES, stamped


@dataclass(frozen=True)
class ScorerSpec:
    """What a scorer needs to know; `keep_all` keeps every adapted image, else one a prompt and adapter."""

    clip: str
    lpips: str
    folder: Path
    digest: str
    keep_all: bool
    threads: int


@dataclass(frozen=True)
class Scored:
    """A unit's rows and the digests of its pictures, in the block's order."""

    table: pa.Table
    images: list[str]


class Scorer:
    """CLIP and LPIPS over a block's pictures; keeps the pictures that resumption and the report need."""

    def __init__(self, spec: ScorerSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec = spec
        self.folder = RunFolder(spec.folder)
        self.clip = ClipScorer(spec.clip)
        self.lpips = LpipsScorer(spec.lpips)
        self._base_cosines: tuple[int, np.ndarray] | None = None

    def ready(self) -> bool:
        return True

    def score_base(self, block: Block, pixels: np.ndarray) -> Scored:
        """Keep the base pictures and measure the block's noise pairs (schema NOISE)."""
        _check(block, pixels, BASE)
        digests = []
        for item, picture in zip(block.items, pixels, strict=True):
            self.folder.save_image(BASE, item.prompt_id, item.seed, picture)
            digests.append(pixel_digest(picture))
        cosines = self._base(block, pixels)
        rows = []
        if block.pairs:
            first, second = (np.array(side) for side in zip(*block.pairs, strict=True))
            distances = self.lpips.distances(pixels[first], pixels[second])
            for a, b, e_per in zip(first, second, distances, strict=True):
                one, other = block.items[a], block.items[b]
                rows.append(
                    {
                        "prompt_id": one.prompt_id,
                        "prompt_category": one.prompt_category,
                        "seed_a": one.seed,
                        "seed_b": other.seed,
                        "e_sem": abs(cosines[a] - cosines[b]),
                        "e_per": e_per,
                    }
                )
        return Scored(pa.Table.from_pylist(rows, stamped(NOISE, self.spec.digest)), digests)

    def read_base(self, block: Block) -> np.ndarray:
        """Return the kept base pictures of a block, uint8 (N, H, W, 3)."""
        return np.stack([self.folder.read_image(BASE, i.prompt_id, i.seed) for i in block.items])

    def score_adapted(
        self,
        block: Block,
        adapter: AdapterInfo,
        pixels: np.ndarray,
        unchanged: list[bool],
        base: np.ndarray,
        device: str,
    ) -> Scored:
        """Score adapted against base pictures of the same prompts and seeds (schema SCORES).

        Args:
            pixels: the adapted pictures; none where all are proved to be the base's own.
            unchanged: for each picture whether that is proved.

        Raises:
            DrawingError: an all-black picture, a score that is not finite, or a picture that was drawn although it is
                proved to be the base's own, and differs from it.
        """
        drawn = len(pixels) > 0
        base_cosines = self._base(block, base)
        if drawn:
            _check(block, pixels, adapter.name)
            _check_proof(block, pixels, unchanged, base, adapter.name)
            cosines = self.clip.cosines([i.prompt for i in block.items], pixels)
            distances = self.lpips.distances(base, pixels)
        else:
            cosines, distances = base_cosines, np.zeros(len(base), dtype=np.float32)
        if not (np.isfinite(cosines).all() and np.isfinite(distances).all()):
            raise DrawingError(f"block {block.index} under {adapter.name}: a score is not finite")
        digests = [pixel_digest(p) for p in (pixels if drawn else base)]
        for k in self._kept(block, distances) if drawn else ():
            item = block.items[k]
            self.folder.save_image(adapter.name, item.prompt_id, item.seed, pixels[k])
        columns: dict[str, Any] = {
            "adapter": [adapter.name] * len(block.items),
            "method": [adapter.method] * len(block.items),
            "subject": [adapter.subject] * len(block.items),
            "subject_category": [adapter.subject_category] * len(block.items),
            "prompt_id": [i.prompt_id for i in block.items],
            "prompt_category": [i.prompt_category for i in block.items],
            "seed": [i.seed for i in block.items],
            "clip_base": base_cosines,
            "clip_adapted": cosines,
            "lpips": distances,
            "base_sha256": [pixel_digest(p) for p in base],
            "adapted_sha256": digests,
            "drawn": [drawn] * len(block.items),
            "device": [device] * len(block.items),
        }
        return Scored(pa.table(columns, schema=stamped(SCORES, self.spec.digest)), digests)

    def _base(self, block: Block, pixels: np.ndarray) -> np.ndarray:
        if self._base_cosines is None or self._base_cosines[0] != block.index:
            self._base_cosines = block.index, self.clip.cosines([i.prompt for i in block.items], pixels)
        return self._base_cosines[1]

    def _kept(self, block: Block, distances: np.ndarray) -> list[int]:
        """Return the positions of the pictures to keep: all, or each prompt's most distant one."""
        if self.spec.keep_all:
            return list(range(len(block.items)))
        worst: dict[str, int] = {}
        for k, item in enumerate(block.items):
            if item.prompt_id not in worst or distances[k] > distances[worst[item.prompt_id]]:
                worst[item.prompt_id] = k
        return sorted(worst.values())


def _check(block: Block, pixels: np.ndarray, adapter: str) -> None:
    black = [block.items[k] for k in np.flatnonzero(~pixels.any(axis=(1, 2, 3)))]
    if black:
        raise DrawingError(f"under {adapter}: an all-black image for {_named(black[0])}")


def _check_proof(block: Block, pixels: np.ndarray, unchanged: list[bool], base: np.ndarray, adapter: str) -> None:
    for item, picture, own, proved in zip(block.items, pixels, base, unchanged, strict=True):
        if proved and not np.array_equal(picture, own):
            raise DrawingError(f"under {adapter}: proved to be the base's own image, drawn another for {_named(item)}")


def _named(item: Item) -> str:
    return f"prompt {item.prompt_id} ({item.prompt!r}), seed {item.seed}"
