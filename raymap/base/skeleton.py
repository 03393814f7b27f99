"""What a base offers an adapter: names and shapes of its weights, its vocabulary. Read without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from tokenizers import Tokenizer

from raymap.base.folder import tokenizer_folder
from raymap.base.shapes import Shapes, shapes_of

COMPONENTS = ("unet", "text_encoder")


def word_id(tokenizer: Tokenizer, word: str) -> int | None:
    """Return the id of a word that is one token, or of a piece of words (Custom Diffusion starts from `ktn`)."""
    ids = tokenizer.encode(word, add_special_tokens=False).ids
    return ids[0] if len(ids) == 1 else tokenizer.token_to_id(word)


@dataclass(frozen=True)
class Skeleton:
    """Parameter shapes by name (`unet.….weight`), and the tokenizer."""

    shapes: Shapes
    tokenizer: Tokenizer

    @property
    def text_width(self) -> int:
        """The width of a token's embedding."""
        return self.shapes["text_encoder.embeddings.token_embedding.weight"][1]

    @property
    def text_length(self) -> int:
        """How many tokens the text encoder reads, begin and end token included."""
        return self.shapes["text_encoder.embeddings.position_embedding.weight"][0]

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
    return Skeleton(shapes, _tokenizer(tokenizer_folder(folder)))


def _tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer that transformers wraps: read as it stands, or built from vocabulary and merges."""
    file = folder / "tokenizer.json"
    if file.is_file():
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()  # some files keep what their writer last did
        tokenizer.no_padding()
        return tokenizer
    from transformers import CLIPTokenizer  # here, because it takes a second to load

    return CLIPTokenizer.from_pretrained(folder).backend_tokenizer
