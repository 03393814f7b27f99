"""An adapter for another kind of base is refused with the names of both, whichever way round."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raymap.adapters.read import read_adapter
from raymap.base.families.registry import FAMILIES
from raymap.base.model import Base
from raymap.base.parts import Parts
from raymap.base.skeleton import Skeleton
from raymap.embedded.model import PIPELINE
from raymap.errors import MisfitError

UNET = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
WIDE = {"Stable Diffusion 1": 768, "Stable Diffusion 2": 1024, "SDXL": 2048}
LAYERS = {
    **{kind: (f"unet.{UNET}", width) for kind, width in WIDE.items()},
    "Stable Diffusion 3": ("transformer.transformer_blocks.0.ff_context.net.2", 32),
    "FLUX.1": ("transformer.single_transformer_blocks.0.attn.to_q", 32),
    "Qwen-Image": ("transformer.transformer_blocks.0.img_mlp.net.2", 32),
    "Z-Image": ("transformer.layers.0.attention.to_q", 32),
    "Wan": ("transformer.blocks.0.cross_attn.to_q", 32),
}
"""A layer that an adapter for each kind of base has, and how wide its input is."""
BASES = {
    "Stable Diffusion 1": ("StableDiffusionPipeline", f"unet.{UNET}.weight", 768),
    "Stable Diffusion 2": ("StableDiffusionPipeline", f"unet.{UNET}.weight", 1024),
    "SDXL": ("StableDiffusionXLPipeline", f"unet.{UNET}.weight", 2048),
    "Stable Diffusion 3": ("StableDiffusion3Pipeline", "transformer.transformer_blocks.0.attn.to_q.weight", 64),
    "FLUX.1": ("FluxPipeline", "transformer.transformer_blocks.0.attn.to_q.weight", 64),
}


def skeleton_of(kind: str) -> Skeleton:
    """Return a skeleton of one weight."""
    pipeline, weight, width = BASES[kind]
    parts = Parts((weight.partition(".")[0], "text_encoder"))
    return Skeleton(FAMILIES[pipeline], parts, {weight: (64, width)}, {}, {})


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", LAYERS)
def test_both_kinds_are_named(kind: str, base: str, tmp_path: Path) -> None:
    layer, width = LAYERS[kind]
    down, up = torch.ones(2, width), torch.ones(64, 2)
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    if kind == base and layer.startswith("unet"):
        assert read_adapter(tmp_path / "lora.safetensors", skeleton_of(base)).method == "lora"
        return
    with pytest.raises(MisfitError, match="use the base it was trained for") as refused:
        read_adapter(tmp_path / "lora.safetensors", skeleton_of(base))
    if kind != base:
        assert f"is for {kind}, and the base is {base} (" in str(refused.value)


def test_the_header_names_the_base_before_any_layer(tmp_path: Path) -> None:
    halves = {"unet.nowhere.lora_A.weight": torch.ones(2, 3), "unet.nowhere.lora_B.weight": torch.ones(3, 2)}
    header = {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    save_file(halves, tmp_path / "lora.safetensors", metadata=header)
    with pytest.raises(MisfitError, match=r"is for SDXL, and the base is raymap's embedded base \("):
        read_adapter(tmp_path / "lora.safetensors", Base.at(PIPELINE).skeleton)
