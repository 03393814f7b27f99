"""ΔW of each kind equals a direct formula in float64, on layers of published sizes, whole and in parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raymap.adapters.read import read_adapter
from raymap.adapters.update import Adapter
from raymap.errors import InputError
from tests.adapters.kinds import KINDS, OF_CONVOLUTIONS, Maker, Tensors
from tests.adapters.published import skeleton_of

LAYERS = {
    "sd15": ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k",),
    "sdxl": ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k",),
    "flux1-dev": ("lora_unet_double_blocks_3_img_attn_proj",),
    "qwen-image": ("transformer.transformer_blocks.7.attn.add_q_proj",),
}
"""A linear layer of each model, as files call it."""
CONVOLUTION = ("sdxl", "lora_unet_input_blocks_4_0_in_layers_2")
FUSED, ROWS, PARTS = "lora_unet_double_blocks_0_img_attn_qkv", (9216, 3072), 3
"""A layer of FLUX.1 that diffusers has in parts: its name, its shape, and how many parts it has."""


def written(parts: Tensors, module: str, path: Path) -> Path:
    save_file({f"{module}.{end}": tensor.contiguous() for end, tensor in parts.items()}, path)
    return path


def weight_like(shape: tuple[int, ...]) -> torch.Tensor:
    return 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


def check(adapter: Adapter, wanted: torch.Tensor, weight: torch.Tensor) -> None:
    (update,) = adapter.updates.values()
    found = update.delta(weight)
    assert found.dtype == torch.float32
    assert (found - wanted).norm() <= 1e-6 * wanted.norm() + 1e-7 * weight.norm()
    assert update.norm(weight) == pytest.approx(float(wanted.norm()), rel=1e-5)
    live = weight.clone()
    update.write(weight, live, 0.5)
    assert (live - (weight + 0.5 * found)).abs().max() <= 1e-6 * live.abs().max()
    update.write(weight, live, 0)
    assert torch.equal(live, weight)


@pytest.mark.parametrize("model", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_layer_changes_as_its_formula_says(kind: str, model: str, tmp_path: Path) -> None:
    skeleton, method = skeleton_of(model), KINDS[kind][0]
    for module in LAYERS[model]:
        shape = {"sd15": (320, 768), "sdxl": (640, 2048)}.get(model, (3072, 3072))
        parts, delta = KINDS[kind][1](Maker(shape))
        read = read_adapter(written(parts, module, tmp_path / "adapter.safetensors"), skeleton)
        assert read.method == method
        weight = weight_like(shape)
        check(read.adapter, delta(weight.double()), weight)


@pytest.mark.parametrize("kind", [*KINDS, *OF_CONVOLUTIONS])
def test_a_convolution_changes_as_its_formula_says(kind: str, tmp_path: Path) -> None:
    model, module = CONVOLUTION
    method, made = (KINDS | OF_CONVOLUTIONS)[kind]
    shape = (640, 320, 3, 3)
    parts, delta = made(Maker(shape))
    read = read_adapter(written(parts, module, tmp_path / "adapter.safetensors"), skeleton_of(model))
    assert read.method == method
    weight = weight_like(shape)
    check(read.adapter, delta(weight.double()), weight)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "columns" not in kind])
def test_parts_of_a_fused_layer_are_the_rows_of_its_whole(kind: str, tmp_path: Path) -> None:
    skeleton = skeleton_of("flux1-dev")
    parts, delta = KINDS[kind][1](Maker(ROWS))
    updates = read_adapter(written(parts, FUSED, tmp_path / "adapter.safetensors"), skeleton).adapter.updates
    assert len(updates) == PARTS
    weight = weight_like(ROWS)
    wanted, first = delta(weight.double()), 0
    for name, update in updates.items():  # in the order of the fused layer's rows
        rows = slice(first, first + skeleton.shapes[name][0])
        found = update.delta(weight[rows])
        assert (found - wanted[rows]).norm() <= 1e-6 * wanted[rows].norm() + 1e-7 * weight[rows].norm(), name
        first = rows.stop
    assert first == ROWS[0]


def test_a_dora_over_the_columns_of_a_fused_layer_is_refused_by_name(tmp_path: Path) -> None:
    parts, _ = KINDS["DoRA by columns"][1](Maker(ROWS))
    path = written(parts, FUSED, tmp_path / "adapter.safetensors")
    with pytest.raises(InputError, match=f"{FUSED}.*columns"):
        read_adapter(path, skeleton_of("flux1-dev"))


def test_norms_and_biases_change_by_their_differences(tmp_path: Path) -> None:
    at = "lora_unet_input_blocks_1_1_transformer_blocks_0"
    tensors = {
        f"{at}_norm1.w_norm": torch.randn(320), f"{at}_norm1.b_norm": torch.randn(320),
        f"{at}_attn1_to_out_0.diff_b": torch.randn(320), "lora_unet_out_0.diff": torch.randn(320),
    }  # fmt: skip
    save_file(tensors, tmp_path / "adapter.safetensors")
    updates = read_adapter(tmp_path / "adapter.safetensors", skeleton_of("sd15")).adapter.updates
    own = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    names = (f"{own}.norm1.weight", f"{own}.norm1.bias", f"{own}.attn1.to_out.0.bias", "unet.conv_norm_out.weight")
    for name, tensor in zip(names, tensors.values(), strict=True):
        assert torch.equal(updates[name].delta(torch.zeros(320)), tensor)
    assert len(updates) == 4
