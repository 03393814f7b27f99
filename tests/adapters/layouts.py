"""Weights of adapter files in the layouts in which they are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from raymap.base.skeleton import Skeleton

Tensors = dict[str, torch.Tensor]
TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TO_OUT = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "encoder.layers.0.self_attn.q_proj"
RANK = 3
VECTORS = torch.arange(2 * 96).float().view(2, 96) / 100


def halves(module: str, skeleton: Skeleton) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (down, up) of a module, the same for the same module; a convolution's have its kernel."""
    component = "text_encoder" if module == TEXT else "unet"
    shape = skeleton.shapes[f"{component}.{module}.weight"]
    generator = torch.Generator().manual_seed(len(module))
    down = torch.randn(RANK, *shape[1:], generator=generator)
    up = torch.randn(shape[0], RANK, *(1 for _ in shape[2:]), generator=generator)
    return down, up


def kohya(module: str) -> str:
    if module == TEXT:
        return "lora_te_text_model_" + module.replace(".", "_")
    return "lora_unet_" + module.replace(".", "_")


def dotted(module: str) -> str:
    return f"text_encoder.text_model.{module}" if module == TEXT else f"unet.{module}"


def old_processor(module: str) -> str:
    attention, _, projection = module.removesuffix(".0").rpartition(".")
    return f"unet.{attention}.processor.{projection}_lora"


LAYOUTS: dict[str, tuple[Callable[[str], str], str, str, list[str]]] = {
    "kohya": (kohya, ".lora_down.weight", ".lora_up.weight", [TO_Q, TO_OUT, CONV, TEXT]),
    "diffusers": (dotted, ".lora.down.weight", ".lora.up.weight", [TO_Q, TO_OUT, CONV]),
    "diffusers text": (dotted, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight", [TEXT]),
    "diffusers old": (old_processor, ".down.weight", ".up.weight", [TO_Q, TO_OUT]),
    "peft": (dotted, ".lora_A.weight", ".lora_B.weight", [TO_Q, TO_OUT, CONV, TEXT]),
    "peft raw": (lambda m: f"base_model.model.{m}", ".lora_A.weight", ".lora_B.weight", [TO_Q, TO_OUT]),
}


def written(
    layout: str, skeleton: Skeleton, path: Path, alpha: float | None = None, more: Tensors | None = None
) -> Path:
    name, down_key, up_key, modules = LAYOUTS[layout]
    tensors: Tensors = dict(more or {})
    for module in modules:
        down, up = halves(module, skeleton)
        tensors |= {name(module) + down_key: down, name(module) + up_key: up}
        if alpha is not None:
            tensors[f"{name(module)}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def expected(layout: str, skeleton: Skeleton, scale: float) -> Tensors:
    """Return ΔW = scale · up ∘ down in float64: a convolution's by composing the two convolutions."""
    deltas = {}
    for module in LAYOUTS[layout][3]:
        down, up = (t.double() for t in halves(module, skeleton))
        name = f"text_encoder.{module}.weight" if module == TEXT else f"unet.{module}.weight"
        equation = "orxy,rikl->oikl" if down.dim() == 4 else "or,ri->oi"
        deltas[name] = scale * torch.einsum(equation, up, down)
    return deltas


def keys_and_values(pipeline: StableDiffusionPipeline, factor: float) -> Tensors:
    chosen = {k: v for k, v in pipeline.unet.named_parameters() if "attn2.to_k.w" in k or "attn2.to_v.w" in k}
    noise = torch.Generator().manual_seed(2)
    return {k: v.detach() + factor * torch.randn(v.shape, generator=noise) for k, v in chosen.items()}
