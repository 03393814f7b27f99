"""The procedural world: repeatable pictures, captions that say what is drawn, a split that does not leak."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from raymap.embedded.train.data import pictures
from raymap.embedded.world.captioned import CATEGORIES, HUES, held_out, sample
from raymap.embedded.world.pen import PALETTE
from raymap.embedded.world.subjects import SUBJECTS
from raymap.study.suite import CATEGORIES as PROMPT_CATEGORIES


def test_the_world_covers_the_six_prompt_categories() -> None:
    assert CATEGORIES == PROMPT_CATEGORIES
    assert {p.category for p in pictures(None, 300, seed=1, held=None)} == set(CATEGORIES)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_can_be_asked_for_and_renders(category: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        picture = sample(rng, category)
        pixels = picture.render(rng)
        assert picture.category == category
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 0


def test_the_same_seed_draws_the_same_pictures() -> None:
    first, second = ([p.render(np.random.default_rng(3)) for p in pictures(None, 20, 4, None)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_training_and_held_out_captions_are_disjoint() -> None:
    training = {p.caption for p in pictures(None, 2_000, 5, held=False)}
    held = {p.caption for p in pictures(None, 300, 6, held=True)}
    assert not training & held
    assert all(held_out(c) for c in held)
    assert 0.03 < np.mean([held_out(p.caption) for p in pictures(None, 2_000, 7, held=None)]) < 0.1


def test_the_named_hue_is_in_the_picture() -> None:
    rng = np.random.default_rng(8)
    seen = set()
    for picture in (p for p in pictures("objects", 600, 9, None) if p.hue):
        pixels = picture.render(rng).reshape(-1, 3) / 255
        wanted = colorsys.rgb_to_hsv(*(v / 255 for v in PALETTE[picture.hue]))[0]
        hsv = np.array([colorsys.rgb_to_hsv(*p) for p in pixels])
        vivid = hsv[hsv[:, 1] > 0.4]
        distance = np.abs((vivid[:, 0] - wanted + 0.5) % 1 - 0.5)
        assert np.median(distance) < 0.05, picture.caption
        seen.add(picture.hue)
    assert seen == set(HUES)


def test_no_caption_names_a_subject() -> None:
    captions = " ".join(p.caption for p in pictures(None, 2_000, 10, None))
    assert not any(s.name in captions for s in SUBJECTS)
    assert "sks" not in captions
