"""Adapters that peft itself wrote, of each of its kinds and for four kinds of bases: ΔW is that of peft's own merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import BOFTConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, get_peft_model
from torch import nn

from raymap.adapters.glance import adapters_in
from raymap.adapters.read import read_adapter
from raymap.base.model import Base
from raymap.base.pipeline import denoiser_of, load
from tests.pipelines import save_tiny

FAMILIES = ("stable_diffusion", "stable_diffusion_xl", "flux", "qwen_image")
LAYERS = ["to_q", "to_k", "to_out.0"]
KINDS: dict[str, tuple[str, Callable[[list[str]], Any]]] = {
    "LoRA": ("lora", lambda layers: LoraConfig(r=3, lora_alpha=7, target_modules=layers)),
    "rank-stabilized": ("lora", lambda layers: LoraConfig(r=3, lora_alpha=7, use_rslora=True, target_modules=layers)),
    "with biases": ("lora", lambda layers: LoraConfig(r=3, lora_alpha=7, lora_bias=True, target_modules=["to_out.0"])),
    "DoRA": ("dora", lambda layers: LoraConfig(r=3, lora_alpha=7, use_dora=True, target_modules=layers)),
    "LoHa": ("loha", lambda layers: LoHaConfig(r=3, alpha=7, target_modules=layers)),
    "LoKr": ("lokr", lambda layers: LoKrConfig(r=3, alpha=7, decompose_factor=4, target_modules=layers)),
    "LoKr, both factored": (
        "lokr",
        lambda layers: LoKrConfig(r=1, alpha=7, decompose_both=True, decompose_factor=4, target_modules=layers),
    ),
    "LoKr, whole factors": ("lokr", lambda layers: LoKrConfig(r=64, alpha=7, target_modules=layers)),
    "IA3": ("ia3", lambda layers: IA3Config(target_modules=layers, feedforward_modules=["to_out.0"])),
    "OFT": ("oft", lambda layers: OFTConfig(oft_block_size=4, target_modules=layers)),
    "BOFT": ("boft", lambda layers: BOFTConfig(boft_block_size=4, target_modules=layers)),
    "OFT by the inverse": (
        "oft",
        lambda layers: OFTConfig(oft_block_size=4, use_cayley_neumann=False, block_share=True, target_modules=layers),
    ),
}  # fmt: skip
"""What raymap calls each kind, and peft's configuration of it."""


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base.at(save_tiny(request.param, tmp_path_factory.mktemp("base")))


@pytest.fixture
def denoiser(base: Base) -> nn.Module:
    return denoiser_of(load(base.folder)).double()


def merged_with(denoiser: nn.Module, config: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Give a denoiser a random adapter, save it, and return what peft's merge adds to each parameter."""
    before = {name: parameter.detach().clone() for name, parameter in denoiser.named_parameters()}
    wrapped = get_peft_model(denoiser, config)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=random, dtype=parameter.dtype)
                parameter.add_(0.1 * noise if "oft_R" not in name else 0.01 * noise)
    wrapped.save_pretrained(str(folder))
    after = wrapped.merge_and_unload().state_dict()
    return {name: after[name] - weight for name, weight in before.items() if not torch.equal(after[name], weight)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_wrote_changes_the_base_as_pefts_merge_does(
    kind: str, base: Base, denoiser: nn.Module, tmp_path: Path
) -> None:
    method, configured = KINDS[kind]
    own = {name: p.detach().clone() for name, p in denoiser.named_parameters()}
    wanted = merged_with(denoiser, configured(LAYERS), tmp_path)
    read = read_adapter(tmp_path, base.skeleton)
    part = base.skeleton.denoiser
    assert read.method == method
    assert {name.removeprefix(f"{part}.") for name in read.adapter.updates} == wanted.keys()
    for name, delta in wanted.items():
        found = read.adapter.updates[f"{part}.{name}"].delta(own[name].float())
        assert (found - delta).norm() <= 1e-6 * delta.norm() + 1e-7 * own[name].norm() * (
            method in ("dora", "oft", "boft")
        )


def test_folders_of_a_denoiser_and_of_a_text_encoder_are_one_adapter(base: Base, tmp_path: Path) -> None:
    """As peft's example of DreamBooth saves them: the names in both files lack the component."""
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "to_q"])
    pipeline = load(base.folder)
    wanted: dict[str, torch.Tensor] = {}
    for part in (base.skeleton.denoiser, base.skeleton.encoder):
        own = {name: p.detach().clone() for name, p in getattr(pipeline, part).named_parameters()}
        if not any("q_proj.weight" in name or "to_q.weight" in name for name in own):
            pytest.skip("its text encoder has other layers")
        deltas = merged_with(getattr(pipeline, part).double(), config, tmp_path / part)
        wanted |= {f"{part}.{name}": delta for name, delta in deltas.items()}
    read = read_adapter(tmp_path, base.skeleton)
    assert read.adapter.updates.keys() == wanted.keys()
    assert adapters_in(tmp_path) == [tmp_path]
    for name, delta in wanted.items():
        found = read.adapter.updates[name].delta(torch.zeros(delta.shape))
        assert (found - delta).norm() <= 1e-6 * delta.norm()
