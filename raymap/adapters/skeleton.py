"""What a base offers an adapter: names and shapes of its weights, its vocabulary. Read without its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

COMPONENTS = ("unet", "text_encoder")


def word_id(tokenizer: Any, word: str) -> int | None:
    """Return the id of a word that is one token, or of a piece of words (Custom Diffusion starts from `ktn`)."""
    ids = tokenizer(word, add_special_tokens=False).input_ids
    return int(ids[0]) if len(ids) == 1 else tokenizer.get_vocab().get(word)


def parameters(components: dict[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (`component.parameter`, parameter) of a base's adaptable components."""
    for component, module in components.items():
        for name, parameter in module.named_parameters():
            yield f"{component}.{name}", parameter


@dataclass(frozen=True)
class Skeleton:
    """Parameter shapes by name (`unet.….weight`), and the tokenizer."""

    shapes: dict[str, torch.Size]
    text_width: int
    tokenizer: Any

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Tokenizer entries and their ids."""
        return dict(self.tokenizer.get_vocab())

    @cached_property
    def flat(self) -> dict[str, str]:
        """Module names with underscores for dots, as kohya's and A1111's files have them -> dotted names."""
        modules = [name.removesuffix(".weight") for name in self.shapes if name.endswith(".weight")]
        flat = {name.replace(".", "_"): name for name in modules}
        for name in modules:  # older text encoders have one more level, and files keep its name
            if name.startswith("text_encoder."):
                flat[name.replace("text_encoder.", "text_encoder.text_model.").replace(".", "_")] = name
        return flat


@cache
def skeleton_of(folder: Path) -> Skeleton:
    """Build the skeleton of a base's folder from its configurations."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
        text_encoder = CLIPTextModel(config)
    components = dict(zip(COMPONENTS, (unet, text_encoder), strict=True))
    shapes = {name: p.shape for name, p in parameters(components)}
    return Skeleton(shapes, config.hidden_size, CLIPTokenizer.from_pretrained(folder / "tokenizer"))
