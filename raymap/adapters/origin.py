"""For which kind of base an adapter file was made, as its header or the names and widths of its layers tell."""

from __future__ import annotations

import re

import torch

from raymap.adapters.container import Container
from raymap.base.skeleton import Skeleton

HEADERS = ("modelspec.architecture", "ss_base_model_version", "base_model", "ss_sd_model_name")
"""The entries of headers in which trainers name the base, the most reliable first."""
NAMES = {
    r"stable-diffusion-xl|sdxl|sd_xl|pony|illustrious|noobai": "SDXL",
    r"stable-diffusion-v?3|sd3": "Stable Diffusion 3",
    r"stable-diffusion-v?1|sd_v1|sd-v1|v1-5": "Stable Diffusion 1",
    r"stable-diffusion-v?2|sd_v2|sd-v2": "Stable Diffusion 2",
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
    r"lora_te2_|unet.*input_blocks_[4578]_1": "SDXL",
}
"""Patterns in the names of layers, and the kind of base that has such layers."""
TEXT_KEYS = re.compile(r"attn2[._]to_[kv][._](?:processor[._])?(?:lora[._])?(?:lora_)?(?:down|A)\b")
WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}
"""How wide the text is that the cross-attention of UNets reads."""


def made_for(file: Container) -> str | None:
    """Return the kind of base that an adapter file was made for; None where nothing tells."""
    for entry in HEADERS:
        said = file.metadata.get(entry, "").lower()
        found = next((kind for pattern, kind in NAMES.items() if re.search(pattern, said)), None)
        if found:
            return found
    keys = [str(key) for key in file.entries]
    by_layer = next((kind for pattern, kind in LAYERS.items() if any(re.search(pattern, key) for key in keys)), None)
    if by_layer:
        return by_layer
    wide = {value.shape[1] for key, value in file.entries.items() if TEXT_KEYS.search(str(key)) and _is_matrix(value)}
    return WIDTHS.get(wide.pop()) if len(wide) == 1 else None


def kind_of(skeleton: Skeleton) -> str:
    """Return a base's kind by the same names: its family, or of UNets the one that reads text of that width."""
    title = skeleton.family.title
    keys = tuple(f"{key}.weight" for key in skeleton.family.text_keys)
    wide = next((shape[1] for name, shape in skeleton.shapes.items() if name.endswith(keys)), None) if keys else None
    return WIDTHS.get(wide, title) if title.startswith("Stable Diffusion 1") and wide is not None else title


def _is_matrix(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2
