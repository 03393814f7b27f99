"""Scores batches: pixels go in (a read-only view of shared memory), Arrow rows come out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raymap.actors.batches import Drawn, Scored
from raymap.actors.judged import Judges
from raymap.actors.specs import ScorerSpec
from raymap.base.device import pin
from raymap.errors import DrawingError
from raymap.plan.blocks import Block, Item
from raymap.scoring.clip import ClipScorer
from raymap.scoring.perceptual import LpipsScorer
from raymap.store.folder import RunFolder, pixel_digest
from raymap.store.lock import check_seen
from raymap.store.schema import FEATURES, NOISE, SCORES, stamped
from raymap.study.adapter import BASE, AdapterInfo
from raymap.study.interventions import MARK


@dataclass(frozen=True)
class _Base:
    """A block's base images as they are scored against: features, cosines, digests, scores of further prompt judges."""

    block: int
    features: torch.Tensor
    cosines: np.ndarray
    digests: list[str]
    judged: dict[str, np.ndarray]


class Scorer:
    """CLIP, LPIPS and a study's further judges over a block's images; keeps those that resuming and the report need."""

    def __init__(self, spec: ScorerSpec) -> None:
        pin(spec.threads)
        self.spec = spec
        self.folder = RunFolder(spec.folder)
        self.clip = ClipScorer(spec.clip, spec.device)
        self.lpips = LpipsScorer(spec.lpips, spec.device)
        self.judges = Judges(spec.judges, spec.device, spec.digest) if spec.judges else None
        self._base: _Base | None = None

    def ready(self) -> bool:
        """Return once it can score; InputError where this node does not see the run folder."""
        check_seen(self.spec.folder)
        return True

    def score_base(self, block: Block, pixels: np.ndarray, drawn: Drawn) -> Scored:
        """Keep the base images and measure the block's noise pairs (schema NOISE)."""
        start = time.perf_counter()
        base = self._of_base(block, pixels)
        self.folder.save_images(BASE, block.items, pixels)
        cosines = base.cosines
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
        table = pa.Table.from_pylist(rows, stamped(NOISE, self.spec.digest))
        features = self._features(block, BASE, base.features)
        judged = self.judges.compare_seeds(block, pixels, base.judged) if self.judges else None
        seconds = drawn.seconds | {"score_s": time.perf_counter() - start}
        return Scored(table, features, base.digests, drawn.device, seconds, judged)

    def read_base(self, block: Block) -> np.ndarray:
        """Return the kept base images of a block, uint8 (N, H, W, 3)."""
        return self.folder.read_images(BASE, block.items)

    def score_adapted(
        self, block: Block, adapter: AdapterInfo, pixels: np.ndarray, drawn: Drawn, base: np.ndarray
    ) -> Scored:
        """Score adapted against base images of the same prompts and seeds (schema SCORES).

        Args:
            pixels: the adapted images; none where all are proved to be the base's own.
            base: the base images, drawn on the same device.

        Raises:
            DrawingError: an all-black image, one of the base's too; a score that is not finite; an image that was
                drawn although it is proved to be the base's own, and differs from it.
            RuntimeError: a further judge broke.
        """
        start = time.perf_counter()
        own = self._of_base(block, base)
        features = None
        if len(pixels):
            _check(block, pixels, adapter.name)
            _check_proof(block, pixels, drawn.unchanged, base, adapter.name)
            seen = self.clip.image_features(pixels)
            features = self._features(block, adapter.name, seen)
            cosines = self.clip.cosines([i.prompt for i in block.items], seen)
            distances = self.lpips.distances(base, pixels)
            digests = [pixel_digest(image) for image in pixels]
        else:
            cosines, distances, digests = own.cosines, np.zeros(len(base), dtype=np.float32), own.digests
        if not all(np.isfinite(found).all() for found in (own.cosines, cosines, distances)):
            raise DrawingError(f"block {block.index} under {adapter.name}: a score is not finite")
        judged = None
        if self.judges and MARK not in adapter.name:  # variants belong to no map
            judged = self.judges.compare_adapted(block, adapter.name, base, pixels, own.judged)
        if len(pixels):
            kept = self._kept(block, distances)
            self.folder.save_images(adapter.name, [block.items[k] for k in kept], pixels[kept], durable=True)
        columns: dict[str, Any] = {
            "adapter": [adapter.name] * len(block.items),
            "method": [adapter.method] * len(block.items),
            "subject": [adapter.subject] * len(block.items),
            "subject_category": [adapter.subject_category] * len(block.items),
            "prompt_id": [i.prompt_id for i in block.items],
            "prompt_category": [i.prompt_category for i in block.items],
            "seed": [i.seed for i in block.items],
            "clip_base": own.cosines,
            "clip_adapted": cosines,
            "lpips": distances,
            "base_sha256": own.digests,
            "adapted_sha256": digests,
            "drawn": [len(pixels) > 0] * len(block.items),
            "device": [drawn.device] * len(block.items),
        }
        table = pa.table(columns, schema=stamped(SCORES, self.spec.digest))
        seconds = drawn.seconds | {"score_s": time.perf_counter() - start}
        return Scored(table, features, digests, drawn.device, seconds, judged)

    def _features(self, block: Block, adapter: str, features: torch.Tensor) -> pa.Table:
        columns = {
            "adapter": [adapter] * len(block.items),
            "prompt_id": [i.prompt_id for i in block.items],
            "prompt_category": [i.prompt_category for i in block.items],
            "seed": [i.seed for i in block.items],
            "feature": list(features.numpy()),
        }
        return pa.table(columns, schema=stamped(FEATURES, self.spec.digest))

    def _of_base(self, block: Block, pixels: np.ndarray) -> _Base:
        """Return cosines and digests of a block's base images, checked and computed once a block."""
        if self._base is None or self._base.block != block.index:
            _check(block, pixels, BASE)
            features = self.clip.image_features(pixels)
            cosines = self.clip.cosines([item.prompt for item in block.items], features)
            judged = self.judges.scores(block.items, pixels) if self.judges else {}
            digests = [pixel_digest(image) for image in pixels]
            self._base = _Base(block.index, features, cosines, digests, judged)
        return self._base

    def _kept(self, block: Block, distances: np.ndarray) -> list[int]:
        """Return the positions of the images to keep: all, or each prompt's most distant one."""
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


def _check_proof(block: Block, pixels: np.ndarray, unchanged: tuple[bool, ...], base: np.ndarray, adapter: str) -> None:
    for item, image, own, proved in zip(block.items, pixels, base, unchanged, strict=True):
        if proved and not np.array_equal(image, own):
            raise DrawingError(f"under {adapter}: proved to be the base's own image, drawn another for {_named(item)}")


def _named(item: Item) -> str:
    return f"prompt {item.prompt_id} ({item.prompt!r}), seed {item.seed}"
