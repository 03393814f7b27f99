"""For which kind of base an adapter file was made, as its header and the names and widths of its layers tell.

Nothing here loads torch: the shapes of a file's tensors are enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from raymap.base.file_kinds import ENCODER_KEYS
from raymap.base.header import Header
from raymap.base.skeleton import Skeleton

HEADERS = ("modelspec.architecture", "ss_base_model_version", "base_model", "ss_sd_model_name")
"""The entries of headers in which trainers name the base, the most reliable first."""
NAMES = {
    r"stable-diffusion-xl|sdxl|sd_xl|pony|illustrious|noobai": "SDXL",
    r"stable-diffusion-v?3|sd3": "Stable Diffusion 3",
    r"stable-diffusion-v?1|sd_v1|sd-v1|v1-5|sd_?1\.?5": "Stable Diffusion 1",
    r"stable-diffusion-v?2|sd_v2|sd-v2|v2-1|sd_?2\.?1": "Stable Diffusion 2",
    r"flux[-._ ]?2": "FLUX.2",
    r"flux": "FLUX.1",
    r"qwen[-_ ]?image": "Qwen-Image",
    r"z[-_ ]?image": "Z-Image",
    r"chroma": "Chroma",
    r"lumina": "Lumina-Image 2.0",
    r"pixart": "PixArt",
    r"wan[-_ ]?2": "Wan",
}
"""Patterns in those entries, in lower case, and what they stand for."""
LAYERS = {
    r"distilled_guidance_layer": "Chroma",
    r"double_blocks|single_blocks|single_transformer_blocks": "FLUX.1",
    r"joint_blocks|transformer_blocks[._]\d+[._]ff_context": "Stable Diffusion 3",
    r"transformer_blocks[._]\d+[._](img|txt)_m(lp|od)": "Qwen-Image",
    r"(noise|context)_refiner|layers[._]\d+[._]attention[._]": "Z-Image",
    r"blocks[._]\d+[._](self|cross)_attn": "Wan",
    r"^lora_te2_|((down|up|input|output)_blocks|mid(dle)?_block).*transformer_blocks[._]1": "SDXL",
}
"""Patterns in the names of layers, with 1 for every number but 0, and the kind of base that has such layers."""
_FACTOR = r"[._](?:processor[._])?(?:lora[._])?(?:lora_)?(?:down|A|hada_w1_b|diff|weight)\b"
"""How the names of factors end whose second axis is a layer's input, and of weights."""
TEXT_KEYS = re.compile(rf"attn2[._](?:processor\.)?to_[kv](?:_lora)?{_FACTOR}")
EMBEDDED = "raymap's embedded base"
WIDTHS = {96: EMBEDDED, 768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}
"""How wide the text is that the cross-attention of UNets reads."""
JOINT_KEYS = re.compile(rf"transformer_blocks[._]\d+[._]attn[._]to_[qkv]{_FACTOR}")
JOINT_WIDTHS = {1536: "Stable Diffusion 3", 2432: "Stable Diffusion 3", 3072: "Qwen-Image or FLUX.1"}
"""How wide the images' tokens are in the joint attention of diffusion transformers whose blocks have the same names."""
TOKENS = {
    frozenset({"clip_l", "clip_g"}): "SDXL",
    frozenset({"clip_l", "clip_g", "t5"}): "Stable Diffusion 3",
    frozenset({"clip_l", "t5"}): "FLUX.1",
}
"""Of which text encoders a file has learned tokens, and the kind of base that has these."""
BASES = {
    "Stable Diffusion 1": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    "Stable Diffusion 2": ("stabilityai/stable-diffusion-2-1",),
    "SDXL": ("stabilityai/stable-diffusion-xl-base-1.0",),
    "Stable Diffusion 3": (
        "stabilityai/stable-diffusion-3.5-large",
        "stabilityai/stable-diffusion-3.5-medium",
        "stabilityai/stable-diffusion-3-medium-diffusers",
    ),
    "FLUX.1": ("black-forest-labs/FLUX.1-dev",),
    "FLUX.2": ("black-forest-labs/FLUX.2-klein-4B",),
    "Qwen-Image": ("Qwen/Qwen-Image",),
    "Z-Image": ("Tongyi-MAI/Z-Image-Turbo",),
    "Chroma": ("lodestones/Chroma1-HD",),
    EMBEDDED: ("embedded",),
}
"""Bases of each kind, all of a known architecture; where there are several, their sizes differ."""


def bases_for(kind: str | None) -> tuple[str, ...]:
    """Return bases of a known architecture for an adapter of this kind, as `made_for` names it."""
    return tuple(base for one in (kind or "").split(" or ") for base in BASES.get(one, ()))


def made_for(header: Header) -> str | None:
    """Return the kind of base that an adapter file was made for, or two joined by "or"; None where nothing tells."""
    return said_by_header(header.metadata) or told_by_layers(header)


def said_by_header(metadata: Mapping[str, str]) -> str | None:
    """Return the kind of base that a file's header names."""
    for entry in HEADERS:
        said = metadata.get(entry, "").lower()
        found = next((kind for pattern, kind in NAMES.items() if re.search(pattern, said)), None)
        if found:
            return found
    return None


def told_by_layers(header: Header) -> str | None:
    """Return the kind of base that has the layers of a file, or the text encoders of its learned tokens."""
    names = "\n".join(sorted(header.patterns))
    by_layer = next((kind for pattern, kind in LAYERS.items() if re.search(pattern, names, re.MULTILINE)), None)
    if by_layer:
        return by_layer
    matrices = {name: shape[1] for name, shape in header.shapes.items() if len(shape) == 2}
    for name, width in tuple(matrices.items()):  # a Kronecker product is as wide as both of its factors together
        stem, mark, _ = name.rpartition("lokr_w1")
        if mark and (right := matrices.get(f"{stem}lokr_w2", matrices.get(f"{stem}lokr_w2_b"))):
            matrices[f"{stem}diff"] = width * right
    for keys, widths in ((TEXT_KEYS, WIDTHS), (JOINT_KEYS, JOINT_WIDTHS)):
        wide = {width for name, width in matrices.items() if keys.search(name)}
        if len(wide) == 1:
            return widths.get(wide.pop())
    encoders = {name.rpartition(".")[2].replace("t5xxl", "t5") for name in header.shapes} & set(ENCODER_KEYS)
    if len(encoders) > 1:
        return TOKENS.get(frozenset(encoders))
    tokens = {width for name, width in matrices.items() if "." not in name or name.startswith("string_to_param")}
    return WIDTHS.get(tokens.pop()) if len(tokens) == 1 and len(matrices) == len(header.shapes) else None


def kind_of(skeleton: Skeleton) -> str:
    """Return a base's kind by the same names: its family, or of UNets the one that reads text of that width."""
    title = skeleton.family.title
    keys = tuple(f"{key}.weight" for key in skeleton.family.text_keys)
    wide = next((shape[1] for name, shape in skeleton.shapes.items() if name.endswith(keys)), None) if keys else None
    return WIDTHS.get(wide, title) if title.startswith("Stable Diffusion 1") and wide is not None else title
