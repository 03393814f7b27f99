"""The side path: adapters act beside layers whose weights are not written, as they do when they are merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from raymap.adapters.resident import AdapterStore, weights_of
from raymap.adapters.update import Adapter, LowRank, Replacement, Update
from raymap.base.pipeline import denoiser_of, load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import call_of
from raymap.errors import InputError
from raymap.study.model import MemorySettings, SamplerSettings
from tests.pipelines import save_tiny

FAMILIES = ("stable_diffusion", "flux", "qwen_image")
SAMPLER = SamplerSettings(steps=2, guidance_scale=3.0)
OFFLOADED = MemorySettings(offload="model")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(request.param, tmp_path_factory.mktemp("base"))


def updates_of(pipeline: DiffusionPipeline, rank: int = 2, scale: float = 0.1) -> dict[str, Update]:
    """Return a random update of every linear layer and convolution, of text encoders too."""
    random = torch.Generator().manual_seed(0)
    updates: dict[str, Update] = {}
    for name, weight in weights_of(pipeline).items():
        component, _, path = name.removesuffix(".weight").partition(".")
        layer = getattr(pipeline, component).get_submodule(path) if name.endswith(".weight") else None
        if isinstance(layer, nn.Linear | nn.Conv2d):
            out, into = weight.flatten(1).shape
            down, up = torch.randn(rank, into, generator=random), torch.randn(out, rank, generator=random)
            updates[name] = LowRank(down / into**0.5, up, scale)
    return updates


def drawn(pipeline: DiffusionPipeline, store: AdapterStore, prompt: str = "a cat") -> torch.Tensor:
    """Return two images as floats."""
    with torch.no_grad(), PromptEncoder(pipeline, store).in_place():
        image: torch.Tensor = pipeline(**call_of(pipeline, [prompt] * 2, (0, 1), SAMPLER))[0]
    return image


def both(folder: Path, adapter: Adapter, alpha: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images of the base, of an adapter that is merged, and of one that acts beside."""
    merged, beside = load(folder), load(folder, memory=OFFLOADED)
    stores = AdapterStore(merged), AdapterStore(beside)
    base = drawn(merged, stores[0])
    assert torch.equal(drawn(beside, stores[1]), base)
    for store in stores:
        store.add("a", adapter)
        store.swap("a", alpha)
    return base, drawn(merged, stores[0]), drawn(beside, stores[1])


def test_an_adapter_beside_draws_what_a_merged_one_draws(folder: Path) -> None:
    adapter = Adapter(updates_of(load(folder)))
    for alpha in (1.0, 0.5):
        base, merged, beside = both(folder, adapter, alpha)
        assert (merged - base).abs().max() > 1e-3
        assert (merged - beside).abs().max() < 1e-5


def test_replaced_weights_and_vectors_act_too(folder: Path) -> None:
    pipeline = load(folder)
    part = next(name for name, module in pipeline.components.items() if module is denoiser_of(pipeline))
    chosen = [name for name in weights_of(pipeline) if name.startswith(f"{part}.") and ".to_v." in name]
    own = weights_of(pipeline)
    base, merged, beside = both(folder, Adapter({name: Replacement(own[name].detach() * 1.5) for name in chosen}))
    assert (merged - base).abs().max() > 1e-4
    assert (merged - beside).abs().max() < 1e-5


def test_a_null_adapter_is_the_base_and_the_base_comes_back_to_the_bit(folder: Path) -> None:
    pipeline = load(folder, memory=OFFLOADED)
    store = AdapterStore(pipeline)
    updates = updates_of(pipeline)
    nulls: dict[str, Update] = {
        name: LowRank(update.down, torch.zeros_like(update.up), 1.0)
        for name, update in updates.items()
        if isinstance(update, LowRank)
    }
    base, weights = drawn(pipeline, store), {k: v.detach().clone() for k, v in weights_of(pipeline).items()}
    store.add("null", Adapter(nulls))
    store.add("some", Adapter(updates))
    store.swap("null")
    assert torch.equal(drawn(pipeline, store), base)
    store.swap("some")
    assert not torch.equal(drawn(pipeline, store), base)
    store.swap("some", alpha=0)
    assert torch.equal(drawn(pipeline, store), base)
    store.restore()
    assert torch.equal(drawn(pipeline, store), base)
    assert all(torch.equal(v, weights[k]) for k, v in weights_of(pipeline).items())


def test_a_quantised_base_is_left_alone_and_adapted_beside(folder: Path) -> None:
    pytest.importorskip("torchao")
    pipeline = load(folder, memory=MemorySettings(quantize="int8"))
    plain = load(folder)
    store = AdapterStore(pipeline)
    base, full = drawn(pipeline, store), drawn(plain, AdapterStore(plain))
    assert not torch.equal(base, full)
    denoiser = {k: u for k, u in updates_of(plain).items() if not k.startswith("text_encoder")}
    linear = {k: u for k, u in denoiser.items() if weights_of(plain)[k].dim() == 2}
    nulls = {k: LowRank(u.down, torch.zeros_like(u.up), 1.0) for k, u in linear.items() if isinstance(u, LowRank)}
    store.add("null", Adapter(nulls))
    store.add("some", Adapter(denoiser))
    store.swap("null")
    assert torch.equal(drawn(pipeline, store), base)
    store.swap("some")
    adapted = drawn(pipeline, store)
    other = AdapterStore(plain)
    other.add("some", Adapter(denoiser))
    other.swap("some")
    effect, expected = adapted - base, drawn(plain, other) - full
    assert torch.nn.functional.cosine_similarity(effect.flatten(), expected.flatten(), dim=0) > 0.9
    store.restore()
    assert torch.equal(drawn(pipeline, store), base)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from raymap.base import quantize

    def none(name: str) -> Any:
        return None

    monkeypatch.setattr(quantize, "find_spec", none)
    with pytest.raises(InputError, match="torchao is not installed"):
        quantize.check_quantize("int8", "cpu")


def test_text_encoders_are_fetched_to_encode_and_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second device is at hand here: `meta` stands for where the pipeline computes, and moves are noted."""
    pipeline = load(save_tiny("stable_diffusion", tmp_path))
    encoder, moves = PromptEncoder(pipeline), []
    monkeypatch.setattr(type(pipeline), "device", property(lambda own: torch.device("meta")))
    monkeypatch.setattr(pipeline.text_encoder, "to", lambda device: moves.append(str(device)))
    for _ in range(2):  # the second time the encoding is remembered
        encoder(["a cat"], torch.device("cpu"), 1, False)
    assert moves == ["meta", "cpu"]
