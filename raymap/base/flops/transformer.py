"""FLOPs of transformers: each weight is used once for every token of the streams that pass through its layer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from raymap.base.families.family import Family
from raymap.base.header import Shapes

_ROLES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("pooled", re.compile(r"(.+\.)?(norm\w*\.linear|\w*mod(ulation\w*)?\.|(ada|time|guidance|t_embedder|style)\w*\.)")),
    ("text", re.compile(r"(.+\.)?(add_[qkv]_proj|to_add_out|ff_context|context_\w+|caption_\w+|text_\w+|txt_\w+)\.")),
    ("both", re.compile(r"(single_transformer_blocks|layers)\.")),
)
"""What diffusers' names of layers say of the tokens that pass through them, unless a family says otherwise; the first
match counts, and all other layers are the image's."""


def count_transformer(
    family: Family, shapes: Shapes, config: Mapping[str, Any], latents: tuple[int, int], text: int
) -> float:
    """Return the FLOPs of one pass: a matrix of n numbers takes 2n for each token.

    Attention of q tokens to k, c wide over all heads, takes 2qkc for the map and 2qkc for what it gathers; a linear
    one of heads that are d wide takes 2qc(d + 1) twice, since Sana's values have a column of ones beside them.

    Args:
        text: how many tokens of a prompt are read.
    """
    matrices, uses = _matrices(shapes), _uses(family, config, latents, text)
    total = 0
    for name, shape in matrices.items():
        total += 2 * math.prod(shape) * uses(name)
        layer, _, projection = name.removesuffix(".weight").rpartition(".")
        if projection not in ("to_q", "q_proj", "to_qkv_mlp_proj"):
            continue
        added = f"{layer}.add_q_proj.weight"
        queries = uses(name) + (uses(added) if added in matrices else 0)
        keys = f"{layer}.{projection.replace('q', 'k', 1)}.weight"
        attended = (uses(keys) if keys in matrices else uses(name)) + (queries - uses(name))
        width = shape[1] if projection == "to_qkv_mlp_proj" else shape[0]
        linear = family.linear_attention is not None and layer.endswith(f".{family.linear_attention}")
        total += 4 * queries * width * (config["attention_head_dim"] + 1 if linear else attended)
    return float(total)


def widest_sequence(
    family: Family, shapes: Shapes, config: Mapping[str, Any], latents: tuple[int, int], text: int
) -> int:
    """Return how many numbers the largest tensor has that goes into or comes out of a layer, for one image."""
    uses = _uses(family, config, latents, text)
    return max(max(shape[:2]) * uses(name) for name, shape in _matrices(shapes).items())


def _matrices(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) > 1}


def _uses(family: Family, config: Mapping[str, Any], latents: tuple[int, int], text: int) -> Callable[[str], int]:
    """Return what says for how many tokens a weight is used."""
    image = math.prod(side // (_patch(config) * family.packed) for side in latents)
    tokens = {"image": image, "text": text, "both": image + (family.joint_tokens or text), "pooled": 1}
    of_prompt = tuple(f"{layer}.weight" for layer in family.text_keys)

    def uses(name: str) -> int:
        own = (use for pattern, use in family.uses.items() if re.search(pattern, name))
        read = "text" if family.cross_attention and name.endswith(of_prompt) else None
        role = read or next(own, None) or next((role for role, pattern in _ROLES if pattern.match(name)), "image")
        return tokens[role] if isinstance(role, str) else role

    return uses


def _patch(config: Mapping[str, Any]) -> int:
    """Return how many latent pixels there are to a side of a token, as a transformer's configuration says."""
    patch = config.get("patch_size") or config.get("all_patch_size") or 1
    return int(patch if isinstance(patch, int) else patch[-1])
