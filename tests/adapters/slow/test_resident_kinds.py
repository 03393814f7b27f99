"""Every kind of update in a live pipeline: doses, masks, random controls, budgets, and acting beside layers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from raymap.adapters.derived import derived
from raymap.adapters.read import read_adapter
from raymap.adapters.resident import AdapterStore, weights_of
from raymap.adapters.update import Adapter
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.embedded.model import PIPELINE
from raymap.study.interventions import Variant
from raymap.study.model import MemorySettings
from tests.adapters.kinds import KINDS, OF_CONVOLUTIONS, Maker, Tensors

LAYERS = {
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (64, 96),
    "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2": (160, 640),
    "text_encoder.encoder.layers.0.self_attn.q_proj": (96, 96),
}
CONVOLUTIONS = {"unet.down_blocks.0.resnets.0.conv1": (64, 64, 3, 3)}
ALL = KINDS | OF_CONVOLUTIONS


def adapter_of(kind: str, folder: Path) -> tuple[Adapter, dict[str, torch.Tensor]]:
    """Return an adapter of a kind, and what a direct formula says of it for each weight of the embedded base."""
    tensors: Tensors = {}
    wanted = {}
    own = weights_of(load(PIPELINE))
    for seed, (module, shape) in enumerate((CONVOLUTIONS | ({} if kind in OF_CONVOLUTIONS else LAYERS)).items()):
        parts, delta = ALL[kind][1](Maker(shape, seed))
        tensors |= {f"{module}.{end}": tensor.contiguous() for end, tensor in parts.items()}
        wanted[f"{module}.weight"] = delta(own[f"{module}.weight"].detach().double())
    save_file(tensors, folder / "adapter.safetensors")
    return read_adapter(folder / "adapter.safetensors", Base.at(PIPELINE).skeleton).adapter, wanted


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    torch.set_num_threads(1)
    return load(PIPELINE)


@pytest.mark.parametrize("kind", ALL)
def test_doses_and_masks_write_what_the_formula_says_and_restore_to_the_bit(
    kind: str, pipeline: DiffusionPipeline, tmp_path: Path
) -> None:
    adapter, wanted = adapter_of(kind, tmp_path)
    live = weights_of(pipeline)
    before = {name: weight.detach().clone() for name, weight in live.items()}
    store = AdapterStore(pipeline)
    store.add(kind, adapter)
    first = next(iter(wanted))
    for dose, only in ((1.0, None), (0.5, None), (2.0, frozenset({first})), (0.0, None)):
        store.swap(kind, dose, only)
        for name, weight in before.items():
            added = dose * wanted[name] if name in wanted and (only is None or name in only) else 0
            assert (live[name] - (weight.double() + added)).norm() <= 1e-6 * (weight.norm() + dose)
            assert dose or torch.equal(live[name], weight)
    store.restore()
    assert all(torch.equal(live[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("kind", ALL)
def test_a_random_update_has_the_same_norm_and_a_budget_few_numbers(
    kind: str, pipeline: DiffusionPipeline, tmp_path: Path
) -> None:
    adapter, wanted = adapter_of(kind, tmp_path)
    weights = {name: weight.detach() for name, weight in weights_of(pipeline).items()}
    random = derived(adapter, Variant("a", "random", "1"), weights)
    for name, delta in wanted.items():
        assert random.updates[name].norm(weights[name]) == pytest.approx(float(delta.norm()), rel=1e-4)
        assert not torch.allclose(random.updates[name].delta(weights[name]).double(), delta, atol=1e-3)
    sides = sum(weights[name].flatten(1).shape[0] + weights[name].flatten(1).shape[1] for name in wanted)
    small = derived(adapter, Variant("a", "budget", str(2 * sides)), weights)
    for name, delta in wanted.items():
        found = small.updates[name].delta(weights[name]).double()
        values = torch.linalg.svdvals(delta.flatten(1))
        assert torch.linalg.matrix_rank(found.flatten(1).float(), rtol=1e-4) <= 2
        assert float((found - delta).norm()) <= math.hypot(*values[2:].tolist()) + 1e-4 * float(delta.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_beside_layers_that_are_not_written_it_adds_the_same(
    kind: str, pipeline: DiffusionPipeline, tmp_path: Path
) -> None:
    adapter, wanted = adapter_of(kind, tmp_path)
    offloaded = load(PIPELINE, memory=MemorySettings(offload="model"))
    store = AdapterStore(offloaded)
    store.add(kind, adapter)
    for name in wanted:
        component, _, path = name.removesuffix(".weight").partition(".")
        layer = getattr(offloaded, component).get_submodule(path)
        shape = layer.weight.shape
        x = torch.randn(2, shape[1], *([9, 9] if len(shape) == 4 else []), generator=torch.Generator().manual_seed(0))
        store.restore()
        base = layer(x)
        for dose in (1.0, 0.5):
            store.swap(kind, dose)
            added = wanted[name].float()
            right = layer._conv_forward(x, added, None) if len(shape) == 4 else torch.nn.functional.linear(x, added)
            assert torch.allclose(layer(x) - base, dose * right, atol=1e-4 * float(right.abs().max()))
    store.restore()
