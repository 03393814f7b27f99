"""New tokens while they are learned: their vectors are parameters beside the frozen token embeddings."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from torch import nn

from raymap.adapters.textual_inversion import INVERSION_FILE
from raymap.adapters.update import Token
from raymap.base.families.registry import family_of
from raymap.base.parts import parts_in
from raymap.base.skeleton import word_id
from raymap.drawing.prompts import Encoding, expanded, text_arguments
from raymap.errors import InputError
from raymap.personalize.lessons import Lessons, write_tensors


class LearnedTokens:
    """Triggers of one or more vectors, one trigger per subject, which start from the embeddings of ordinary words.

    Every text encoder that `Family.learning` names has vectors of its own, and all are learned together. The trained
    vectors are all that exists of them: no other embedding can change, and the pipeline stays as it was.
    """

    def __init__(self, pipeline: DiffusionPipeline, triggers: list[str], vectors: int, initializers: list[str]) -> None:
        """Start all vectors of each trigger from the embedding of its initializer.

        A text encoder after the first may read an initializer as several tokens; the vectors then start from these in
        turn, as in diffusers' `train_dreambooth_lora_flux_advanced.py`.

        Raises:
            InputError: an initializer is not a single token of the first text encoder, or a trigger is one already.
        """
        self._pipeline = pipeline
        self._triggers = triggers
        parts = parts_in(pipeline)
        self._readers = {
            encoder: _Reader(pipeline, encoder, parts.tokenizers[encoder], vectors, k > 0)
            for k, encoder in enumerate(family_of(pipeline).learning(parts.encoders))
        }
        self.vectors = {
            encoder: nn.Parameter(torch.stack([reader.start(initializer) for initializer in initializers]))
            for encoder, reader in self._readers.items()
        }
        for token in self.tokens:
            for reader in self._readers.values():
                reader.add(token)

    @classmethod
    def of(cls, pipeline: DiffusionPipeline, lessons: Lessons, vectors: int) -> Self:
        """Return tokens for the triggers of lessons; raises as the constructor."""
        return cls(pipeline, [x.trigger for x in lessons], vectors, [x.initializer for x in lessons])

    @property
    def weights(self) -> list[nn.Parameter]:
        """The vectors (subjects, n, width) of all text encoders, one parameter for each."""
        return list(self.vectors.values())

    @torch.no_grad()
    def randomize(self, seed: int) -> None:
        """Replace all vectors by Gaussian noise of their own standard deviation."""
        random = torch.Generator("cpu").manual_seed(seed)
        for vectors in self.weights:
            noise = torch.randn(vectors.shape, generator=random)
            vectors.copy_(noise * vectors.std().cpu())

    @property
    def tokens(self) -> list[Token]:
        """The tokens as they are now, one per subject."""
        vectors = {encoder: own.detach().cpu().clone() for encoder, own in self.vectors.items()}
        return [
            Token(trigger, {encoder: own[k] for encoder, own in vectors.items()})
            for k, trigger in enumerate(self._triggers)
        ]

    def encoded(self, captions: list[str]) -> Encoding:
        """Return what the pipeline's own `encode_prompt` gives for captions without guidance, with a gradient.

        Args:
            captions: one subject's after another's, equally many of each.
        """
        with contextlib.ExitStack() as stack:
            for encoder, reader in self._readers.items():
                stack.enter_context(reader.reading(self.vectors[encoder], len(captions) // len(self._triggers)))
            encode = type(self._pipeline).encode_prompt
            encoded: Encoding = encode(self._pipeline, **text_arguments(self._pipeline, captions))
        return encoded

    def write(self, folders: list[Path], squeeze: bool = False) -> None:
        """Write each subject's token into its folder, in the layout that its base's community uses.

        Where a base names its text encoders (`Family.inversions`), the file is called by the trigger, which such files
        do not hold.

        Args:
            squeeze: write a single vector without an axis of vectors, in a file called by the trigger.
        """
        keys = {encoder: key for key, encoder in family_of(self._pipeline).inversions.items()}
        for token, folder in zip(self.tokens, folders, strict=True):
            vectors = {encoder: own[0] if squeeze else own for encoder, own in token.vectors.items()}
            name = f"{token.trigger}.safetensors" if keys or squeeze else INVERSION_FILE
            write_tensors({keys.get(encoder, token.trigger): own for encoder, own in vectors.items()}, folder / name)


class _Reader:
    """A text encoder with its tokenizer, while the triggers of several subjects are learned."""

    def __init__(
        self, pipeline: DiffusionPipeline, encoder: str, tokenizer: str, vectors: int, in_pieces: bool
    ) -> None:
        self._pipeline, self._name, self._vectors, self._in_pieces = pipeline, tokenizer, vectors, in_pieces
        self._tokenizer = getattr(pipeline, tokenizer)
        module = getattr(pipeline, encoder)
        self._table = module.get_input_embeddings().weight
        # T5 holds the same table in two modules.
        self._embeddings = [
            own for own in module.modules() if isinstance(own, nn.Embedding) and own.weight is self._table
        ]
        self._tokenizers: list[Any] = []

    def start(self, initializer: str) -> torch.Tensor:
        """Return the vectors (n, width) from which a token starts, float32."""
        inner = self._tokenizer.backend_tokenizer
        word = word_id(inner, initializer)
        rows = [] if word is None else [word]
        if word is None and self._in_pieces:
            rows = inner.encode(initializer, add_special_tokens=False).ids
        if not rows:
            raise InputError(f"initializer {initializer!r}", "is not one token of the base", "give a word that is")
        return self._table[[rows[k % len(rows)] for k in range(self._vectors)]].detach().float()

    def add(self, token: Token) -> None:
        """Give the next subject a tokenizer that knows its trigger."""
        extended = copy.deepcopy(self._tokenizer)
        known = set(token.names) & self._tokenizer.get_vocab().keys()
        if extended.add_tokens(token.names) != self._vectors or known:
            problem = "is an ordinary token of the base"
            raise InputError(f"trigger {token.trigger!r}", problem, "give another, for example in angle brackets")
        self._tokenizers.append(extended)

    @contextlib.contextmanager
    def reading(self, vectors: nn.Parameter, each: int) -> Iterator[None]:
        """Have the pipeline read captions, `each` of every subject in turn, with the subjects' vectors."""
        places = torch.empty(0)

        def hide(_: nn.Module, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
            nonlocal places
            places = args[0] - len(self._tokenizer)
            return args[0].masked_fill(places >= 0, 0)

        def insert(_: nn.Module, args: object, rows: torch.Tensor) -> torch.Tensor:
            at = places.clamp(min=0)
            own = vectors[at // self._vectors, at % self._vectors].to(rows.dtype)
            return torch.where((places >= 0)[..., None], own, rows)

        setattr(self._pipeline, self._name, _Tokenizers(self._tokenizer, self._tokenizers, each))
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self._pipeline, self._name, self._tokenizer)
            for embedding in self._embeddings:
                stack.callback(embedding.register_forward_pre_hook(hide).remove)
                stack.callback(embedding.register_forward_hook(insert).remove)
            yield


class _Tokenizers:
    """Stands in for a pipeline's tokenizer: reads each subject's captions with the subject's own.

    The entries that a subject's tokenizer has beyond the base's get ids of their own, those of the first subject first.
    """

    def __init__(self, tokenizer: Any, own: list[Any], each: int) -> None:
        self._tokenizer, self._own, self._each = tokenizer, own, each

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, texts: list[str], padding: Any = False, return_tensors: Any = None, **kwargs: Any) -> Any:
        rows = [self._row(k // self._each, text, kwargs) for k, text in enumerate(texts)]
        length = kwargs.get("max_length")
        return self._tokenizer.pad(rows, padding=padding, max_length=length, return_tensors=return_tensors)

    def _row(self, subject: int, text: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        first, own = len(self._tokenizer), self._own[subject]
        row = dict(own(expanded(text, own), **kwargs))
        offset = subject * (len(own) - first)
        row["input_ids"] = [k + offset if k >= first else k for k in row["input_ids"]]
        return row
