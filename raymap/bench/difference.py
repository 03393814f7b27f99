"""How much a setup's images and scores differ from those of the plain setting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from raymap.bench.drawing import Drawer, block_of
from raymap.bench.scorer import start_process
from raymap.bench.setups import Setup
from raymap.scoring.clip import ClipScorer
from raymap.scoring.perceptual import LpipsScorer


@dataclass(frozen=True)
class Difference:
    """The difference between two drawings of one block by the base.

    `pixel` and `pixel_mean` are the largest and the mean absolute difference of uint8 values. `clip` is the largest
    difference of an image's CLIP cosine, `lpips` the largest LPIPS between the two drawings of an image.
    """

    pixel: int
    pixel_mean: float
    clip: float
    lpips: float


def difference(
    one: np.ndarray, other: np.ndarray, prompts: list[str], clip: ClipScorer, lpips: LpipsScorer
) -> Difference:
    """Return the difference between two drawings of the same prompts, each uint8 (N, H, W, 3)."""
    gap = np.abs(one.astype(np.int16) - other)
    before, after = (clip.cosines(prompts, clip.image_features(pixels)) for pixels in (one, other))
    distances = lpips.distances(one, other)
    return Difference(int(gap.max()), float(gap.mean()), float(np.abs(after - before).max()), float(distances.max()))


def difference_from_plain(setup: Setup, pixels: np.ndarray) -> Difference | None:
    """Draw a setup's first block with the plain setting; return how the setup's pixels, uint8 (N, H, W, 3), differ.

    Call it in a process of its own, so that two models never share a device. The result is None where the plain
    setting, in float32, needs more memory than the device has.
    """
    start_process(setup, 0)
    block = block_of(setup, 0)
    try:
        plain = Drawer(setup.plain).draw(block)
    except torch.OutOfMemoryError:
        return None
    prompts = [item.prompt for item in block.items]
    return difference(
        plain, pixels, prompts, ClipScorer(setup.clip, setup.device), LpipsScorer(setup.lpips, setup.device)
    )
