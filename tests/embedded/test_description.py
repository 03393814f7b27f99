"""Captions are read, changed and drawn again element by element."""

from __future__ import annotations

import numpy as np
import pytest

from raymap.embedded.world.captioned import CATEGORIES, sample
from raymap.embedded.world.description import Description, Person, Things, describe
from raymap.embedded.world.misses import SHOWN, misses


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_caption_of_the_world_is_read_and_written_back(category: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        caption = sample(rng, category, held_out=None).caption
        assert describe(caption).caption == caption


@pytest.mark.parametrize("caption", ["", "a grandmother in Kyoto", "a red cat on grass today", "two red cat"])
def test_other_captions_are_refused(caption: str) -> None:
    with pytest.raises(ValueError, match="is no caption of the world"):
        describe(caption)


def test_what_a_caption_says_is_read() -> None:
    assert describe("a mosaic of two red boxes") == Description(Things((("red", "box"),), "", 2), "mosaic")
    assert describe("a man with red hair wearing a blue hat and glasses in front of a red wall") == Description(
        Person("man", "red", "", "blue", True, "in front of a red wall")
    )


@pytest.mark.parametrize("category", CATEGORIES)
def test_near_misses_differ_in_one_element_and_are_captions_of_the_world(category: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(60):
        own = describe(sample(rng, category, held_out=None).caption)
        for miss in misses(own, rng):
            assert miss.kind in SHOWN
            if miss.caption:
                assert describe(miss.caption) == miss.description != own
            else:
                assert miss.description == own


def test_equal_seeds_give_equal_layouts() -> None:
    own = describe("a red cat on grass")
    empty, cat = own.render(3, "none").astype(int), own.render(3).astype(int)
    _, mask = own.render_with_mask(3)
    assert 0.1 < mask.mean() < 0.5
    assert np.abs(empty - cat)[~mask].max() <= 8
    assert np.abs(empty - cat)[mask].mean() > 40
    blue = describe("a blue cat on grass").render(3).astype(int)
    assert np.abs(blue - cat)[~mask].max() <= 24  # edges of the figure, too thin for the mask
    assert np.abs(own.render(4).astype(int) - cat).max() > 40


def test_a_blob_has_the_place_of_the_subject_but_not_its_shape() -> None:
    own = describe("a blue book on a table")
    blob, empty, book = (own.render(5, s).astype(int) for s in ("blob", "none", "own"))
    assert np.abs(blob - empty).max() > 60
    assert np.abs(blob - book).max() > 60
