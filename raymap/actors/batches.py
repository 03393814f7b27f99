"""What actors report of a batch: the generator to the scorer, and the scorer to the reducer."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Drawn:
    """How a batch was drawn: which images are proved to be the base's own, on what device, in how many seconds."""

    unchanged: tuple[bool, ...]
    device: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """A unit's rows, its images' features and digests in the block's order, and where and how fast it was drawn.

    `features` (schema FEATURES) is None where no image was drawn, `judged` (schema JUDGED) where there are no judges
    beside CLIP and LPIPS.
    """

    table: pa.Table
    features: pa.Table | None
    images: list[str]
    device: str
    seconds: dict[str, float]
    judged: pa.Table | None = None
