"""What a base offers an adapter: names and shapes of its weights, and its vocabulary. Read without its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from raymap.base.checkpoint import Checkpoint
from raymap.base.families.family import Family
from raymap.base.header import Shapes
from raymap.base.parts import Parts, is_text, parts_of
from raymap.base.shapes import PREFIXES, class_of, index_of, shapes_of

TABLES = ("token_embedding.weight", "shared.weight", "embed_tokens.weight", "word_embeddings.weight")
"""How the names of token embeddings end; of a T5, whose embedding has two names, the first is taken."""
POSITIONS = "position_embedding.weight"
"""How the name of the embedding of a CLIP encoder's positions ends."""


def word_id(tokenizer: Tokenizer, word: str) -> int | None:
    """Return the id of a word that is one token, or of a piece of words (Custom Diffusion starts from `ktn`)."""
    ids = tokenizer.encode(word, add_special_tokens=False).ids
    return ids[0] if len(ids) == 1 else tokenizer.token_to_id(word)


def is_target(layer: str, targets: tuple[str, ...]) -> bool:
    """Return whether a layer is targeted by its whole name or the end of it, as peft matches `target_modules`."""
    return any(layer == target or layer.endswith(f".{target}") for target in targets)


def table_in(names: Iterable[str]) -> str:
    """Return the name of the token embedding among those of a text encoder's weights."""
    own = list(names)
    return next(name for table in TABLES for name in own if name.endswith(table))


@dataclass(frozen=True)
class Skeleton:
    """The shapes of the weights that adapters change, by name (`unet.….weight`), and the tokenizers."""

    family: Family
    parts: Parts
    shapes: Shapes
    tokenizers: Mapping[str, Path]
    """The folder of each text encoder's tokenizer; an outline has CLIP's alone."""

    prefixes: Mapping[str, str]
    """What a component's weights begin with in files of the hub and not here, by component."""

    folder: Path | None = None
    """The base's folder, with whose weights whole models are compared."""

    file: Checkpoint | None = None
    """The single file that holds the base's weights, or its denoiser's, instead."""

    @property
    def denoiser(self) -> str:
        """The component whose weights an adapter means that names none."""
        return self.parts.denoisers[0]

    @property
    def encoder(self) -> str:
        """The first text encoder."""
        return self.parts.encoders[0]

    @cached_property
    def text_widths(self) -> dict[str, int]:
        """The width of a token's embedding in each text encoder."""
        return {encoder: self.shapes[self._table(encoder)][1] for encoder in self.parts.encoders}

    @cached_property
    def positions(self) -> dict[str, int]:
        """How many tokens each text encoder reads that has a table of positions."""
        return {
            name.partition(".")[0]: shape[0]
            for name, shape in self.shapes.items()
            if is_text(name) and name.endswith(POSITIONS)
        }

    @cached_property
    def text_length(self) -> int:
        """How many tokens of a prompt are read, including the begin and end token, by the encoder that reads most."""
        positions = self.positions
        free = set(self.parts.encoders) - positions.keys()  # how many tokens these read, their pipeline says
        return max([*positions.values(), *([self.family.tokens] if free and self.family.tokens else [])], default=0)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The first text encoder's tokenizer, as `tokenizer_of`."""
        return self.tokenizer_of(self.encoder)

    def tokenizer_of(self, encoder: str) -> Tokenizer | None:
        """Return a text encoder's tokenizer, read when it is first asked for; None where an outline lacks it."""
        if encoder not in self.tokenizers:
            return None
        if encoder not in self._read:
            self._read[encoder] = _tokenizer(self.tokenizers[encoder])
        return self._read[encoder]

    @property
    def vocabulary(self) -> dict[str, int]:
        """Entries of the first text encoder's tokenizer and their ids, as `vocabulary_of`."""
        return self.vocabulary_of(self.encoder)

    def vocabulary_of(self, encoder: str) -> dict[str, int]:
        """Return the entries of a text encoder's tokenizer and their ids; none where an outline lacks it."""
        if encoder not in self._vocabularies:
            tokenizer = self.tokenizer_of(encoder)
            self._vocabularies[encoder] = tokenizer.get_vocab() if tokenizer else {}
        return self._vocabularies[encoder]

    def targeted(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the weights of the denoiser's layers that are targeted, by ends of their names."""
        weights = [name for name in self.shapes if self.family.in_denoiser(name) and name.endswith(".weight")]
        return tuple(name for name in weights if is_target(name.removesuffix(".weight"), targets))

    @cached_property
    def _read(self) -> dict[str, Tokenizer]:
        return {}

    @cached_property
    def _vocabularies(self) -> dict[str, dict[str, int]]:
        return {}

    def _table(self, encoder: str) -> str:
        """Return the name of a text encoder's token embedding."""
        return table_in(name for name in self.shapes if name.startswith(f"{encoder}."))


def read_skeleton(
    folder: Path, family: Family, tokenizers: Mapping[str, Path], file: Checkpoint | None = None
) -> Skeleton:
    """Read the skeleton of a base's folder.

    Args:
        tokenizers: the folder of each text encoder's tokenizer, where it is known.
        file: the single file that holds the weights, if one does.

    Raises:
        InputError: as `shapes_of`.
    """
    parts = parts_of(index_of(folder))
    shapes = {
        f"{component}.{name}": shape
        for component in parts.adapted
        for name, shape in shapes_of(folder, component).items()
    }
    prefixes = {component: PREFIXES.get(class_of(folder, component), "") for component in parts.adapted}
    return Skeleton(family, parts, shapes, tokenizers, prefixes, folder, file)


def _tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer that transformers wraps: read from its file, or built from vocabulary and merges."""
    file = folder / "tokenizer.json"
    if file.is_file():
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()  # some files keep what their writer last did
        tokenizer.no_padding()
        return tokenizer
    from transformers import AutoTokenizer  # here, because it takes a second to load

    return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
