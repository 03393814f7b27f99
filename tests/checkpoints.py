"""Single-file checkpoints as people have them, written from pipelines of diffusers by its conversion turned round."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
UNET = "model.diffusion_model."
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
TOP = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def write_checkpoint(
    pipeline: DiffusionPipeline,
    path: Path,
    markers: Mapping[str, torch.Tensor] | None = None,
    second: bool = False,
) -> Path:
    """Write a Stable Diffusion or SDXL pipeline as one file.

    Args:
        markers: further tensors, as `v_pred`.
        second: whether its text encoder is open_clip's, as in Stable Diffusion 2.
    """
    parts = pipeline.components
    tensors = unet_of(parts["unet"]) | vae_of(parts["vae"])
    if "text_encoder_2" in parts:
        tensors |= clip_of(parts["text_encoder"], "conditioner.embedders.0.transformer.")
        tensors |= open_clip_of(parts["text_encoder_2"], "conditioner.embedders.1.model.")
    elif second:
        tensors |= open_clip_of(parts["text_encoder"], "cond_stage_model.model.")
    else:
        tensors |= clip_of(parts["text_encoder"], "cond_stage_model.transformer.")
    tensors |= dict(markers or {}) | {"betas": torch.zeros(3)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    return path


def unet_of(unet: Any) -> Tensors:
    """Return a UNet's weights by the names of the first Stable Diffusion."""
    layers = unet.config.layers_per_block
    crossed = [kind.startswith("CrossAttn") for kind in unet.config.up_block_types]
    return {UNET + _unet_name(name, layers, crossed): value for name, value in unet.state_dict().items()}


def _unet_name(name: str, layers: int, crossed: list[bool]) -> str:
    for top, other in TOP.items():
        if name.startswith(f"{top}."):
            return other + name.removeprefix(top)
    if found := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", name):
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op.{found[2]}"
    if found := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.+)", name):
        block = int(found[1])
        return f"output_blocks.{block * (layers + 1) + layers}.{1 + crossed[block]}.conv.{found[2]}"
    if found := re.fullmatch(r"mid_block\.resnets\.(\d+)\.(.+)", name):
        return f"middle_block.{2 * int(found[1])}.{_resnet(found[2])}"
    if found := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", name):
        return f"middle_block.1.{found[1]}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name)
    assert found, name
    side, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    place = block * (layers + 1) + layer + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{place}." + (
        f"0.{_resnet(rest)}" if kind == "resnets" else f"1.{rest}"
    )


def _resnet(name: str) -> str:
    layer, _, rest = name.partition(".")
    return f"{RESNET[layer]}.{rest}"


def vae_of(vae: Any) -> Tensors:
    """Return an autoencoder's weights by those names; its attention was made of convolutions."""
    last = len(vae.config.block_out_channels) - 1
    tensors: Tensors = {}
    for name, value in vae.state_dict().items():
        other = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        other = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", other)
        other = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", other)
        other = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{last - int(m[1])}.block", other)
        other = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", other)
        other = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", other)
        if "mid_block.attentions" in other:
            other = other.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            other = re.sub(r"to_out\.0", "proj_out", re.sub(r"to_([qkv])", r"\1", other))
            value = value[..., None, None] if value.dim() == 2 else value
        tensors[f"first_stage_model.{other}"] = value
    return tensors


def clip_of(encoder: Any, prefix: str) -> Tensors:
    """Return a CLIP text encoder's weights as transformers wrote them when those files were made."""
    tensors = {f"{prefix}text_model.{name}": value for name, value in encoder.state_dict().items()}
    positions = torch.arange(encoder.config.max_position_embeddings)[None]
    return {**tensors, f"{prefix}text_model.embeddings.position_ids": positions}


def open_clip_of(encoder: Any, prefix: str) -> Tensors:
    """Return a CLIP text encoder's weights by open_clip's names, which keep queries, keys and values in one tensor."""
    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    unused = torch.eye(encoder.config.hidden_size)
    tensors = {
        "positional_embedding": state.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": state.pop("embeddings.token_embedding.weight"),
        "text_projection": state.pop("text_projection.weight", unused).T,
        "logit_scale": torch.tensor(4.6),
    }
    for kind in ("weight", "bias"):
        tensors[f"ln_final.{kind}"] = state.pop(f"final_layer_norm.{kind}")
        for layer in range(encoder.config.num_hidden_layers):
            own, other = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
            joined = torch.cat([state.pop(f"{own}.self_attn.{part}_proj.{kind}") for part in "qkv"])
            tensors[f"{other}.attn.in_proj_{kind}"] = joined
            for mine, theirs in {
                "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
                "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
            }.items():  # fmt: skip
                tensors[f"{other}.{theirs}.{kind}"] = state.pop(f"{own}.{mine}.{kind}")
    assert not state, state.keys()
    return {prefix + name: value for name, value in tensors.items()}
