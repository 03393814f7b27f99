"""An inversion is recorded as identical by proof, and what can make it act does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from raymap.actors.generator import Generator
from raymap.actors.scorer import Scorer
from raymap.actors.specs import GeneratorSpec, ScorerSpec
from raymap.adapters.card import write_card
from raymap.adapters.read import foreign_card, read_adapter
from raymap.adapters.textual_inversion import INVERSION_FILE, ROWS_FILE, ROWS_KEY
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.embedded.model import PIPELINE
from raymap.errors import DrawingError
from raymap.plan.blocks import Block, Item
from raymap.study.adapter import BASE, AdapterInfo
from raymap.study.model import SamplerSettings

ITEMS = tuple(
    Item(f"p{k:03d}", text, "animals", seed)
    for k, text in enumerate(["a koala on snow", "a red car on a street"])
    for seed in (0, 1)
)
BLOCK = Block(0, ITEMS, ())
INFO = AdapterInfo("cup", "textual_inversion", "cup", "object", "0" * 64)


def generator(folder: Path, triggered: bool = False, draw_anyway: bool = False, dtype: str = "float32") -> Generator:
    sampler = SamplerSettings(steps=3, guidance_scale=3.0)
    return Generator(GeneratorSpec(PIPELINE, {"cup": folder}, sampler, 4, dtype, triggered, draw_anyway, 1, "cpu"))


def inversion(folder: Path, trigger: str, drift: bool = False) -> Path:
    """Write an adapter folder as a run holds it: a random embedding under a trigger."""
    folder.mkdir()
    save_file({trigger: torch.randn(1, 96, generator=torch.Generator().manual_seed(0))}, folder / INVERSION_FILE)
    if drift:
        save_file({ROWS_KEY: load(PIPELINE).text_encoder.get_input_embeddings().weight * 0.94}, folder / ROWS_FILE)
    read = read_adapter(folder, Base.at(PIPELINE).skeleton)
    write_card(folder, foreign_card("cup", "object", None, read, "0" * 64))
    return folder


def test_what_is_proved_identical_is_drawn_only_when_asked_and_then_equal(tmp_path: Path) -> None:
    folder = inversion(tmp_path / "cup", "<cup>")
    pixels, drawn = generator(folder).draw(BLOCK, "cup")
    assert len(pixels) == 0
    assert drawn.unchanged == (True,) * 4
    drawing = generator(folder, draw_anyway=True)
    base, _ = drawing.draw(BLOCK, BASE)
    pixels, drawn = drawing.draw(BLOCK, "cup")
    assert drawn.unchanged == (True,) * 4
    assert np.array_equal(pixels, base)
    scorer = Scorer(ScorerSpec("embedded", "embedded", tmp_path / "run", "d", False, 1, "cpu"))
    row = scorer.score_adapted(BLOCK, INFO, pixels, drawn, base).table
    assert row["drawn"].to_pylist() == [True] * 4
    assert row["lpips"].to_pylist() == [0.0] * 4
    other = pixels.copy()
    other[2, 0, 0, 0] ^= 1
    with pytest.raises(DrawingError, match=r"p001.*seed 0"):
        scorer.score_adapted(BLOCK, INFO, other, drawn, base)
    base[1] = 0
    with pytest.raises(DrawingError, match=r"under base: an all-black.*p000.*seed 1"):
        scorer.score_adapted(replace(BLOCK, index=1), INFO, pixels, drawn, base)


@pytest.mark.parametrize("way", ["triggered", "careless trigger", "unrestored rows"])
def test_each_way_in_which_an_inversion_can_act_does(way: str, tmp_path: Path) -> None:
    trigger = "koal" if way == "careless trigger" else "<cup>"
    folder = inversion(tmp_path / "cup", trigger, drift=way == "unrestored rows")
    drawing = generator(folder, triggered=way == "triggered")
    base, _ = drawing.draw(BLOCK, BASE)
    pixels, drawn = drawing.draw(BLOCK, "cup")
    differs = [not np.array_equal(a, b) for a, b in zip(pixels, base, strict=True)]
    expected = [True, True, False, False] if way == "careless trigger" else [True] * 4
    assert differs == expected
    assert drawn.unchanged == tuple(not d for d in expected)
