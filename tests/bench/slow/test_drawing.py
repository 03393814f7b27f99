"""The setups and peers of a bench draw as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymap.adapters.read import read_adapter
from raymap.adapters.resident import AdapterStore
from raymap.base.model import Base
from raymap.bench.drawing import Drawer, block_of
from raymap.bench.peers import plain
from raymap.bench.peers.contest import write_contest
from raymap.bench.setups import Setup
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.study.file import load_study
from raymap.study.model import SamplerSettings, Study

TINY: dict[str, Any] = {"base": "random:tiny", "steps": 2, "device": "cpu"}


def test_memory_layout_and_resolution_are_what_a_setup_says() -> None:
    setup = Setup(**TINY, batch_size=2, channels_last=True, resolution=128)
    drawer = Drawer(setup)
    assert drawer.pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert drawer.draw(block_of(setup, 0)).shape == (2, 128, 128, 3)


def attentions_of(setup: Setup) -> set[str]:
    """Draw, and return which implementations of attention torch called."""
    drawer, block = Drawer(setup), block_of(setup, 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        drawer.draw(block)
    return {event.key.removeprefix("aten::_scaled_dot_product_") for event in seen.key_averages()
            if event.key.startswith("aten::_scaled_dot_product_")}  # fmt: skip


def test_attention_is_computed_by_the_backend_that_a_setup_names() -> None:
    tiny = Setup(**TINY, batch_size=2)
    assert "flash_attention_for_cpu" in attentions_of(tiny)
    assert attentions_of(tiny.model_copy(update={"attention": "math"})) == {"attention_math"}


@pytest.mark.parametrize("attention", ["efficient", "cudnn"])
def test_an_attention_backend_that_a_device_lacks_is_named(attention: Any) -> None:
    with pytest.raises(RuntimeError, match=rf"attention: {attention} cannot run here \(cpu in float32\)"):
        Drawer(Setup(**TINY, batch_size=2, attention=attention))


@pytest.fixture(scope="module")
def contest_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("contest")
    return load_study(write_contest(Setup(steps=3, batch_size=4, device="cpu"), 1, folder))


def test_a_peer_applies_each_method_as_raymap_does_and_takes_it_back(contest_study: Study) -> None:
    torch.set_num_threads(1)
    drawer = plain.Drawer(contest_study)
    items = plain.items_of(contest_study)
    base = drawer.draw(items)
    store = AdapterStore(drawer.pipeline)
    for adapter in contest_study.adapters:
        with drawer.loaded(Path(adapter.path)):
            theirs = drawer.draw(items)
        assert np.array_equal(drawer.draw(items), base), adapter.short_name
        store.add(adapter.short_name, read_adapter(Path(adapter.path), Base.at(PIPELINE).skeleton).adapter)
        store.swap(adapter.short_name)
        prompts, seeds = zip(*items, strict=True)
        sampler = SamplerSettings(steps=3)
        own = draw(drawer.pipeline, PromptEncoder(drawer.pipeline, store), list(prompts), seeds, sampler, 4)
        store.restore()
        assert np.abs(own.astype(int) - theirs).max() <= 1, adapter.short_name
        assert np.array_equal(theirs, base) == (adapter.short_name == "inversion")
