"""What the embedded CLIP is trained on: groups of images around one caption, with how much of it each image shows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from raymap.embedded.world.captioned import is_held_out, sample
from raymap.embedded.world.description import Description, describe
from raymap.embedded.world.misses import SHOWN, Miss, misses

SLOTS = 5
"""Images per group. The first shows the caption; captions of the others are empty where no caption is true of them."""
MASK = 16
SEED = 20_262
CHUNK = 100


@dataclass(frozen=True)
class Groups:
    """N groups of images.

    Attributes:
        pixels: uint8 (N, SLOTS, 64, 64, 3).
        captions: what each image shows, str (N, SLOTS).
        shown: the share of the group's first caption that each image shows, float32 (N, SLOTS), 0 to 1.
        masks: where the subject is in the first image, uint8 (N, 16, 16), 0 to 255.
    """

    pixels: np.ndarray
    captions: np.ndarray
    shown: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


def joined(parts: list[Groups]) -> Groups:
    """Return all groups of several parts, in their order."""
    return Groups(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Groups)))


def coarse_mask(mask: np.ndarray) -> np.ndarray:
    """Average a mask, bool (64, 64), to uint8 (16, 16); an empty one counts as one that is full."""
    side = len(mask) // MASK
    share = mask.reshape(MASK, side, MASK, side).mean((1, 3))
    return (255 * (share if share.any() else np.ones_like(share))).astype(np.uint8)


def described(rng: np.random.Generator) -> Description:
    """Return the description of a random training caption."""
    return describe(sample(rng).caption)


def captioned_misses(description: Description, rng: np.random.Generator, n: int) -> list[Miss]:
    """Return `n` near misses that have captions, none of them held out."""
    options = [m for m in misses(description, rng) if m.caption and not is_held_out(m.caption)]
    while len(options) < n:  # a pattern has three kinds of misses, some of which may be held out
        options += [m for m in misses(description, rng) if m.caption and not is_held_out(m.caption)]
    return [options[k] for k in rng.permutation(len(options))[:n]]


def _group(rng: np.random.Generator) -> tuple[np.ndarray, list[str], list[float], np.ndarray]:
    own = described(rng)
    seed, other = (int(s) for s in rng.integers(2**31, size=2))
    first, mask = own.render_with_mask(seed)
    near = captioned_misses(own, rng, 3)
    gone = [m for m in misses(own, rng) if not m.caption]
    third = gone[int(rng.integers(len(gone)))] if gone else near[2]
    chosen = [*near[:2], third]
    pixels = [first, own.render(other), *(m.description.render(seed, m.subject) for m in chosen)]
    captions = [own.caption, own.caption, *(m.caption for m in chosen)]
    return np.stack(pixels), captions, [1.0, 1.0, *(SHOWN[m.kind] for m in chosen)], coarse_mask(mask)


def _chunk(seed: int) -> Groups:
    rng = np.random.default_rng((SEED, seed))
    rows = [_group(rng) for _ in range(CHUNK)]
    pixels, captions, shown, masks = (list(column) for column in zip(*rows, strict=True))
    return Groups(np.stack(pixels), np.array(captions), np.array(shown, dtype=np.float32), np.stack(masks))


def rendered(pool: ProcessPoolExecutor, n: int) -> Iterator[Groups]:
    """Start rendering `n` groups, rounded up to chunks of 100, and return the chunks in their order.

    The first image shows the caption, the second shows it in another layout. Two others share the first one's layout
    and show near misses; in the last one the subject is gone, where the caption has one that can be.
    """
    futures: list[Future[Groups]] = [pool.submit(_chunk, k) for k in range(-(-n // CHUNK))]
    return (future.result() for future in futures)
