"""What the embedded CLIP is trained on."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from raymap.embedded.train import groups, nuisance
from raymap.embedded.train.drawn import blurred_rms
from raymap.embedded.world.captioned import is_held_out
from raymap.scoring.blurred import BlurredRms


def test_no_held_out_caption_is_trained_and_equal_calls_give_equal_groups() -> None:
    with ProcessPoolExecutor(1) as pool:
        (one,), (other,) = (list(groups.rendered(pool, 100)) for _ in range(2))
    assert one.pixels.shape == (100, groups.SLOTS, 64, 64, 3)
    assert not any(is_held_out(c) for c in one.captions.ravel() if c)
    assert (one.captions[:, 0] == one.captions[:, 1]).all()
    assert (one.shown[:, :2] == 1).all()
    assert (one.shown[:, 2:] < 1).all()
    assert one.masks.max(axis=(1, 2)).min() > 0
    for name in ("pixels", "captions", "shown", "masks"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_harmless_changes_are_small_and_keep_the_range() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 3, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    many = x.repeat(100, 1, 1, 1)
    y = nuisance.changed(many)
    assert y.shape == many.shape
    assert y.min() >= 0
    assert y.max() <= 1
    difference = (y - many).abs().mean((1, 2, 3))
    assert 0.1 < (difference == 0).float().mean() < 0.5
    assert difference.max() < 0.2
    for one in nuisance.NUISANCES:
        assert 0 < (one(many) - many).abs().mean() < 0.15


def test_what_a_cover_hides_is_measured_at_the_subject() -> None:
    torch.manual_seed(0)
    x, masks = torch.rand(400, 3, 64, 64), torch.zeros(400, 16, 16)
    masks[:, 6:10, 6:10] = 1
    y, left = nuisance.covered(x, masks)
    touched = (y - x).abs().sum(1) > 0
    middle = touched[:, 24:40, 24:40].float().mean((1, 2))
    assert torch.allclose(left, nuisance.COVERED - nuisance.HIDDEN * middle.sqrt(), atol=0.02)
    assert left.min() < 0.2
    assert left.max() > 0.6


def test_blurred_differences_are_those_of_the_judge() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 6, 8, 8, 3), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    ours = blurred_rms(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    assert np.allclose(ours, BlurredRms("cpu").distances(one, other), rtol=0.05)
