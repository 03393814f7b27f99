"""What a base offers an adapter: names and shapes of its weights, its vocabulary. Read without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from raymap.shapes import Shapes, shapes_of

COMPONENTS = ("unet", "text_encoder")


def word_id(tokenizer: Any, word: str) -> int | None:
    """Return the id of a word that is one token, or of a piece of words (Custom Diffusion starts from `ktn`)."""
    ids = tokenizer(word, add_special_tokens=False).input_ids
    return int(ids[0]) if len(ids) == 1 else tokenizer.get_vocab().get(word)


@dataclass(frozen=True)
class Skeleton:
    """Parameter shapes by name (`unet.….weight`), and the tokenizer."""

    shapes: Shapes
    tokenizer: Any

    @property
    def text_width(self) -> int:
        """The width of a token's embedding."""
        return self.shapes["text_encoder.embeddings.token_embedding.weight"][1]

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
    """Return the skeleton of a base's folder.

    Raises:
        InputError: as `shapes_of`.
    """
    shapes = {f"{part}.{name}": shape for part in COMPONENTS for name, shape in shapes_of(folder, part).items()}
    return Skeleton(shapes, CLIPTokenizer.from_pretrained(folder / "tokenizer"))
