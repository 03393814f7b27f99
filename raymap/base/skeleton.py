"""What a base offers an adapter: names and shapes of its weights, and its vocabulary. Read without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from raymap.base.families.family import Family
from raymap.base.shapes import Shapes, shapes_of


def word_id(tokenizer: Tokenizer, word: str) -> int | None:
    """Return the id of a word that is one token, or of a piece of words (Custom Diffusion starts from `ktn`)."""
    ids = tokenizer.encode(word, add_special_tokens=False).ids
    return ids[0] if len(ids) == 1 else tokenizer.token_to_id(word)


def is_target(layer: str, targets: tuple[str, ...]) -> bool:
    """Return whether a layer is targeted by its whole name or the end of it, as peft matches `target_modules`."""
    return any(layer == target or layer.endswith(f".{target}") for target in targets)


@dataclass(frozen=True)
class Skeleton:
    """The shapes of the weights that adapters change, by name (`unet.….weight`), and the tokenizer."""

    family: Family
    shapes: Shapes
    tokenizer: Tokenizer

    @property
    def text_width(self) -> int:
        """The width of a token's embedding."""
        return self._text_shape(self.family.token_embedding)[1]

    @property
    def text_length(self) -> int:
        """How many tokens the text encoder reads, including the begin and end token."""
        return self._text_shape(self.family.position_embedding)[0]

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Tokenizer entries and their ids."""
        return dict(self.tokenizer.get_vocab())

    @cached_property
    def flat(self) -> dict[str, str]:
        """Dotted module names, by the names with underscores for dots that kohya's and A1111's files use."""
        modules = [name.removesuffix(".weight") for name in self.shapes if name.endswith(".weight")]
        flat = {name.replace(".", "_"): name for name in modules}
        text = f"{self.family.text_encoder}."
        for name in modules:
            if name.startswith(text):
                flat[name.replace(text, text + self.family.hub_prefix, 1).replace(".", "_")] = name
        return flat

    def targeted(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the weights of the denoiser's layers that are targeted, by ends of their names."""
        weights = [name for name in self.shapes if self.family.in_denoiser(name) and name.endswith(".weight")]
        return tuple(name for name in weights if is_target(name.removesuffix(".weight"), targets))

    def _text_shape(self, weight: str) -> tuple[int, ...]:
        return self.shapes[f"{self.family.text_encoder}.{weight}"]


def read_skeleton(folder: Path, family: Family, tokenizer: Path) -> Skeleton:
    """Read the skeleton of a base's folder.

    Args:
        tokenizer: the folder that holds the tokenizer.

    Raises:
        InputError: as `shapes_of`.
    """
    shapes = {
        f"{component}.{name}": shape
        for component in family.adapted
        for name, shape in shapes_of(folder, component, family.hub_prefix).items()
    }
    return Skeleton(family, shapes, _tokenizer(tokenizer))


def _tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer that transformers wraps: read from its file, or built from vocabulary and merges."""
    file = folder / "tokenizer.json"
    if file.is_file():
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()  # some files keep what their writer last did
        tokenizer.no_padding()
        return tokenizer
    from transformers import CLIPTokenizer  # here, because it takes a second to load

    return CLIPTokenizer.from_pretrained(folder).backend_tokenizer
