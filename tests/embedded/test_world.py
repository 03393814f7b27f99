"""The procedural world: repeatable images, captions that say what is drawn, a split that does not leak."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from raymap.embedded.train.data import motifs
from raymap.embedded.world.captioned import CATEGORIES, HUES, is_held_out, sample
from raymap.embedded.world.pen import PALETTE
from raymap.embedded.world.subjects import SUBJECTS
from raymap.study.suite import CATEGORIES as PROMPT_CATEGORIES


def test_the_world_covers_the_six_prompt_categories() -> None:
    assert CATEGORIES == PROMPT_CATEGORIES
    assert {p.category for p in motifs(None, 300, seed=1, held_out=None)} == set(CATEGORIES)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_can_be_asked_for_and_renders(category: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        motif = sample(rng, category)
        pixels = motif.render(rng)
        assert motif.category == category
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 0


def test_the_same_seed_draws_the_same_images() -> None:
    first, second = ([p.render(np.random.default_rng(3)) for p in motifs(None, 20, 4, None)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_training_and_held_out_captions_are_disjoint() -> None:
    training = {p.caption for p in motifs(None, 2_000, 5, held_out=False)}
    held_out = {p.caption for p in motifs(None, 300, 6, held_out=True)}
    assert not training & held_out
    assert all(is_held_out(c) for c in held_out)
    assert 0.03 < np.mean([is_held_out(p.caption) for p in motifs(None, 2_000, 7, held_out=None)]) < 0.1


def test_the_named_hue_is_in_the_image() -> None:
    rng = np.random.default_rng(8)
    seen = set()
    for motif in (p for p in motifs("objects", 600, 9, None) if p.hue):
        pixels = motif.render(rng).reshape(-1, 3) / 255
        wanted = colorsys.rgb_to_hsv(*(v / 255 for v in PALETTE[motif.hue]))[0]
        hsv = np.array([colorsys.rgb_to_hsv(*p) for p in pixels])
        vivid = hsv[hsv[:, 1] > 0.4]
        distance = np.abs((vivid[:, 0] - wanted + 0.5) % 1 - 0.5)
        assert np.median(distance) < 0.05, motif.caption
        seen.add(motif.hue)
    assert seen == set(HUES)


def test_no_caption_names_a_subject() -> None:
    captions = " ".join(p.caption for p in motifs(None, 2_000, 10, None))
    assert not any(s.name in captions for s in SUBJECTS)
    assert "sks" not in captions
