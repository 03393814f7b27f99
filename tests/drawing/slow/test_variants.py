"""Variants of an adapter are drawn, and leave no trace in the base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raymap.actors.generator import Generator
from raymap.actors.specs import GeneratorSpec
from raymap.adapters.card import adapter_digest
from raymap.adapters.custom_diffusion import CUSTOM_DIFFUSION_FILE, key_of
from raymap.adapters.resident import weights_of
from raymap.base.pipeline import load
from raymap.embedded.model import PIPELINE
from raymap.plan.blocks import Block, Item
from raymap.study.model import SamplerSettings


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return dict(weights_of(load(PIPELINE)))


def test_variants_of_replaced_weights_are_drawn_and_leave_no_trace(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Custom Diffusion's keys and values: dose 0 is the base, dose 1 the adapter, before and after all others."""
    random = torch.Generator().manual_seed(0)
    names = [n for n in weights if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    moved = {n: weights[n] + 0.1 * torch.randn(weights[n].shape, generator=random) for n in names}
    save_file({key_of(n.removeprefix("unet.")): w for n, w in moved.items()}, tmp_path / CUSTOM_DIFFUSION_FILE)
    card = {"method": "custom_diffusion", "sha256": adapter_digest((tmp_path / CUSTOM_DIFFUSION_FILE,))}
    (tmp_path / "adapter.json").write_text(json.dumps(card))
    sampler = SamplerSettings(steps=2, guidance_scale=3.0)
    spec = GeneratorSpec(PIPELINE, {"cup": tmp_path}, sampler, 2, "float32", False, False, 1, "cpu")
    generator = Generator(spec)
    block = Block(0, (Item("p0", "a red car", "objects", 1), Item("p1", "a city at night", "scenes", 2)), ())

    def drawn(name: str) -> bytes:
        return generator.draw(block, name)[0].tobytes()

    base, whole = drawn("base"), drawn("cup")
    others = (
        "dose=0.5", "projection=attn2.to_k", "projection=attn2.to_v", "timesteps=early", "timesteps=late", "random=0",
        "random=1", "budget=3000", "norm=0.01,alpha=0.3",
    )  # fmt: skip
    images = {name: drawn(f"cup@{name}") for name in others}
    assert len({base, whole, *images.values()}) == 2 + len(others)
    assert drawn("cup@dose=0") == base
    assert drawn("cup@dose=1") == whole
    assert {name: drawn(f"cup@{name}") for name in reversed(others)} == images
    assert (drawn("base"), drawn("cup")) == (base, whole)
