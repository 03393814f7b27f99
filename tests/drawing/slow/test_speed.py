"""A study's `speed`: compiled and laid-out bases draw pairs that are computed alike, and are other runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymap.actors.generator import Generator
from raymap.actors.specs import GeneratorSpec
from raymap.adapters.card import write_card
from raymap.adapters.read import foreign_card, read_adapter
from raymap.adapters.update import LowRank
from raymap.base.compile import compiled_once, speed_up
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.bench.models import random_lora, write_lora
from raymap.embedded.model import PIPELINE
from raymap.plan.blocks import Block, Item
from raymap.study.adapter import BASE
from raymap.study.model import SamplerSettings, SpeedSettings

BLOCK = Block(0, (Item("p0", "a red car", "objects", 1), Item("p1", "a city at night", "scenes", 2)), ())


@pytest.fixture
def eagerly_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torch compile to a graph that it then runs operation by operation: guards and recompilations are real."""
    compile_ = torch.compile

    def eager(module: Any, mode: str) -> Any:
        return compile_(module, mode=mode, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random LoRA, and one whose update is zero."""
    folder = tmp_path_factory.mktemp("adapters")
    updates: dict[str, LowRank] = random_lora(load(PIPELINE).unet, 0)
    nulls = {name: replace(update, up=torch.zeros_like(update.up)) for name, update in updates.items()}
    base = Base.at(PIPELINE)
    for name, of in (("cup", updates), ("null", nulls)):
        write_lora(of, folder / name)
        read = read_adapter(folder / name, base.skeleton)
        write_card(folder / name, foreign_card(name, "object", None, read, base.sha256))
    return {name: folder / name for name in ("cup", "null")}


def generator(adapters: dict[str, Path], speed: SpeedSettings, size: int = 2) -> Generator:
    sampler = SamplerSettings(steps=3, guidance_scale=3.0)
    return Generator(GeneratorSpec(PIPELINE, adapters, sampler, size, "float32", False, False, 1, "cpu", speed))


@pytest.mark.usefixtures("eagerly_compiled")
def test_a_compiled_base_draws_the_same_under_every_adapter_and_variant_and_compiles_once(
    adapters: dict[str, Path],
) -> None:
    """The compiled graph is run operation by operation here, so that its images are the plain ones to the bit."""
    names = (BASE, "cup", "null", "cup@dose=0.5", "cup@stage=mid_block", "cup@timesteps=early", "cup@random=0", BASE)
    plain, compiled = (generator(adapters, SpeedSettings(compile=mode)) for mode in ("none", "default"))
    assert compiled.pipeline.unet._compiled_call_impl is not None
    drawn = {name: compiled.draw(BLOCK, name)[0] for name in names}  # the second one on fails where it compiles again
    for name in names:
        assert np.array_equal(drawn[name], plain.draw(BLOCK, name)[0]), name
    assert np.array_equal(drawn["null"], drawn[BASE])
    assert not np.array_equal(drawn["cup"], drawn[BASE])


@pytest.mark.usefixtures("eagerly_compiled")
def test_what_would_compile_again_after_the_first_batch_is_an_error() -> None:
    pipeline, speed = load(PIPELINE), SpeedSettings(compile="default")
    speed_up(pipeline, speed)
    text = torch.zeros(2, 77, pipeline.unet.config.cross_attention_dim)
    with torch.no_grad():
        pipeline.unet(torch.zeros(2, 4, 16, 16), 1, text)
        with compiled_once(speed):
            pipeline.unet(torch.ones(2, 4, 16, 16), 1, text)
            with pytest.raises(RuntimeError, match="recompile"):
                pipeline.unet(torch.zeros(2, 4, 8, 8), 1, text)


def test_a_channels_last_base_keeps_its_layout_under_adapters(adapters: dict[str, Path]) -> None:
    laid_out = generator(adapters, SpeedSettings(channels_last=True))
    pixels = {name: laid_out.draw(BLOCK, name)[0] for name in (BASE, "cup", "null")}
    weight = laid_out.pipeline.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert np.array_equal(pixels["null"], pixels[BASE])
    plain = generator(adapters, SpeedSettings()).draw(BLOCK, "cup")[0]
    assert np.abs(pixels["cup"].astype(int) - plain).max() <= 2  # other kernels, other last bits
