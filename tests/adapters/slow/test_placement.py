"""Every community's layout is placed whole on models of the published sizes; what is not whole is refused by name."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.loaders.single_file_utils import (
    convert_auraflow_transformer_checkpoint_to_diffusers,
    convert_ldm_unet_checkpoint,
    convert_lumina2_to_diffusers,
    convert_sana_transformer_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from safetensors.torch import save_file

from raymap.adapters.converter import asked
from raymap.adapters.placement import Place, place
from raymap.adapters.read import read_adapter
from raymap.base.folder import OUTLINES
from raymap.base.shapes import config_of
from raymap.errors import InputError
from tests.adapters.published import Layout, Modules, aura_flow, crossed, flux, layouts, lumina, sd3, skeleton_of, unet
from tools.layouts_page import END, PAGE, START, table

LAYOUTS = {f"{layout.model} {layout.title}": layout for layout in layouts()}
FEW = 12
"""How many modules of a layout files are written with; all would take gigabytes."""


def rows_of(at: Place, shapes: Mapping[str, tuple[int, ...]]) -> torch.Tensor:
    return torch.arange(shapes[f"{at.module}.weight"][0]) if at.rows is None else at.rows


def written(layout: Layout, modules: Modules, path: Path, rank: int = 1) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for name, (out, into, *kernel) in modules.items():
        tensors[f"{name}.{layout.halves[0]}.weight"] = torch.ones(rank, into, *kernel)
        tensors[f"{name}.{layout.halves[1]}.weight"] = torch.ones(out, rank, *[1] * len(kernel))
        if layout.alpha:
            tensors[f"{name}.alpha"] = torch.tensor(0.5)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_module_is_placed_with_all_of_its_rows(name: str) -> None:
    layout = LAYOUTS[name]
    skeleton = skeleton_of(layout.model)
    modules = layout.modules(skeleton)
    found, left = place(modules, skeleton)
    assert left == []
    targets: set[str] = set()
    for module, (out, *rest) in modules.items():
        arrived = torch.cat([rows_of(at, skeleton.shapes) for at in found[module]])
        assert torch.equal(arrived.sort().values, torch.arange(out))
        for at in found[module]:
            shape = skeleton.shapes[f"{at.module}.weight"]
            assert len(rows_of(at, skeleton.shapes)) == shape[0]
            assert math.prod(shape[1:]) == math.prod(rest)
            assert at.module not in targets or "lora2" in module
            targets.add(at.module)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_not_whole_is_refused_by_name(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    skeleton = skeleton_of(layout.model)
    every = layout.modules(skeleton)
    chosen = random.Random(0).sample(sorted(every), min(FEW, len(every)))
    modules = {module: every[module] for module in chosen}
    path = tmp_path / "lora.safetensors"
    assert read_adapter(written(layout, modules, path), skeleton).adapter.updates
    odd = chosen[len(chosen) // 2]
    renamed = odd.replace("blocks", "blockz") if "blocks" in odd else f"{odd}_more"
    with pytest.raises(InputError, match=renamed.replace(".", r"\.")):
        read_adapter(written(layout, {(renamed if m == odd else m): s for m, s in modules.items()}, path), skeleton)
    out, into, *kernel = modules[odd]
    with pytest.raises(InputError, match=odd.replace(".", r"\.")):
        read_adapter(written(layout, modules | {odd: (out, into + 1, *kernel)}, path), skeleton)
    with pytest.raises(InputError, match=odd.replace(".", r"\.")):
        read_adapter(written(layout, modules | {odd: (out + 4, into, *kernel)}, path), skeleton)


def numbered(modules: Modules) -> dict[str, torch.Tensor]:
    """Return a checkpoint of these modules, in which each row of each weight is one number of its own."""
    first, tensors = 1, {}
    for name, shape in modules.items():
        rows = torch.arange(first, first + shape[0], dtype=torch.float64)
        tensors[f"{name}.weight"] = rows.view(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()
        first += shape[0]
    return tensors


class Checkpoint(dict[str, torch.Tensor]):
    """A checkpoint with every tensor for which it is asked; converters ask for those too that no adapter changes."""

    def __missing__(self, key: str) -> torch.Tensor:
        return torch.zeros(6)

    def pop(self, key: str, default: Any = None) -> torch.Tensor:
        return super().pop(key, torch.zeros(6))


@pytest.mark.parametrize(
    ("model", "converter", "names"),
    [
        ("sd15", convert_ldm_unet_checkpoint, unet),
        ("sd21", convert_ldm_unet_checkpoint, unet),
        ("sdxl", convert_ldm_unet_checkpoint, unet),
        ("sd3-medium", convert_sd3_transformer_checkpoint_to_diffusers, sd3),
        ("sd35-medium", convert_sd3_transformer_checkpoint_to_diffusers, sd3),
        ("lumina2", convert_lumina2_to_diffusers, lumina),
        ("aura-flow", convert_auraflow_transformer_checkpoint_to_diffusers, aura_flow),
        ("sana", convert_sana_transformer_to_diffusers, crossed),
    ],
)
def test_rows_lie_where_diffusers_puts_those_of_whole_checkpoints(model: str, converter: object, names: object) -> None:
    """diffusers has no converter of such LoRA files, or not of all, and converts checkpoints of the same names."""
    skeleton = skeleton_of(model)
    modules = names(skeleton)  # type: ignore[operator]
    thin = {name: (shape[0], 1, *shape[2:]) for name, shape in modules.items()}
    tensors = numbered(thin)
    found, _ = place(modules, skeleton)
    unets = converter is convert_ldm_unet_checkpoint
    config = config_of(OUTLINES / model, skeleton.denoiser) if unets else None
    prefix = "model.diffusion_model." if unets else ""
    biases = {f"{name}.bias": torch.zeros(shape[0]) for name, shape in thin.items() if unets}
    complete = Checkpoint({f"{prefix}{name}": value.clone() for name, value in (tensors | biases).items()})
    converted = converter(complete, config=config)  # type: ignore[operator]
    for module, places in found.items():
        for at in places:
            wanted = converted[f"{at.module.partition('.')[2]}.weight"]
            assert torch.equal(tensors[f"{module}.weight"][rows_of(at, skeleton.shapes)], wanted), at.module


CONVERTED = [
    name
    for name, layout in LAYOUTS.items()
    if layout.model in ("flux1-dev", "chroma", "flux2-klein-4b", "z-image", "wan2.1-1.3b")
    and ("`diffusion_model." in name or "`lora_unet_" in name)
    and not name.endswith(("diffusion_model.`", "lora_unet_`"))
]
"""The layouts that diffusers converts LoRA files of; of Lumina-Image 2.0 only complete ones."""


@pytest.mark.parametrize("name", CONVERTED)
def test_rows_lie_where_diffusers_converts_them_to(name: str) -> None:
    layout = LAYOUTS[name]
    skeleton = skeleton_of(layout.model)
    modules = layout.modules(skeleton)
    found, _ = place(modules, skeleton)
    answers = asked(modules, skeleton)
    assert answers.keys() == modules.keys()
    for module, rows in answers.items():
        assert {at.module: rows_of(at, skeleton.shapes).tolist() for at in found[module]} == {
            target: index.tolist() for target, index in rows
        }


def test_a_fused_layer_is_split_as_diffusers_splits_it_to_the_last_bit(tmp_path: Path) -> None:
    """Whole numbers make every product exact, so that equal means equal."""
    skeleton = skeleton_of("flux1-dev")
    names = ("double_blocks.3.img_attn.qkv", "single_blocks.7.linear1", "double_blocks.0.txt_mlp.2")
    random_ = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        out, into = flux(skeleton)[name]
        at = "lora_unet_" + name.replace(".", "_")
        tensors[f"{at}.lora_down.weight"] = torch.randint(-8, 8, (2, into), generator=random_).float()
        tensors[f"{at}.lora_up.weight"] = torch.randint(-8, 8, (out, 2), generator=random_).float()
        tensors[f"{at}.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "lora.safetensors")
    updates = read_adapter(tmp_path / "lora.safetensors", skeleton).adapter.updates
    state = FluxPipeline.lora_state_dict({key: value.clone() for key, value in tensors.items()})
    wanted = {key.removesuffix(".lora_B.weight") for key in state if key.endswith("lora_B.weight")}
    assert {name.removesuffix(".weight") for name in updates} == wanted
    assert len(wanted) == 3 + 4 + 1
    for name in wanted:
        theirs = state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
        found = updates[f"{name}.weight"].delta(torch.empty(skeleton.shapes[f"{name}.weight"]))
        assert torch.equal(found, theirs)


def test_a_text_encoder_is_told_by_the_folder_or_by_its_shapes(tmp_path: Path) -> None:
    skeleton = skeleton_of("sdxl")
    layer = "text_model.encoder.layers.0.self_attn.q_proj"
    for folder, width, encoder in (("any", 768, "text_encoder"), ("any", 1280, "text_encoder_2")):
        path = tmp_path / folder / "adapter_model.safetensors"
        path.parent.mkdir(exist_ok=True)
        halves = {"lora_A.weight": torch.ones(1, width), "lora_B.weight": torch.ones(width, 1)}
        save_file({f"base_model.model.{layer}.{end}": value for end, value in halves.items()}, path)
        (name,) = read_adapter(path, skeleton).adapter.updates
        assert name.startswith(f"{encoder}.")


def test_of_a_kind_that_raymap_does_not_describe_diffusers_converter_is_asked() -> None:
    known = skeleton_of("flux1-dev")
    family = replace(known.family, pipeline="diffusers:FluxKontextPipeline", known=False)
    modules = LAYOUTS["flux1-dev `diffusion_model.double_blocks…`"].modules(known)
    found, left = place(modules, replace(known, family=family))
    assert left == []
    wanted, _ = place(modules, known)
    for module, places in wanted.items():
        assert {at.module for at in found[module]} == {at.module for at in places}
    odd = {"diffusion_model.double_blockz.3.img_attn.qkv": (9216, 3072)}
    assert place(odd, replace(known, family=family))[1] == list(odd)


def test_the_page_of_adapters_counts_what_is_placed() -> None:
    assert START + table() + END in PAGE.read_text(encoding="utf-8"), "run python -m tools.layouts_page"
