"""New tokens while they are learned: their vectors are parameters beside the frozen token embedding."""

from __future__ import annotations

import copy
from typing import Self

import torch
from diffusers import DiffusionPipeline

from raymap.adapters.update import Token
from raymap.base.skeleton import word_id
from raymap.errors import InputError
from raymap.personalize.lessons import Lessons

ENCODER = "text_encoder"
"""The text encoder that learns the tokens."""


class LearnedTokens:
    """Triggers of one or more vectors, one trigger per subject, which start from the embeddings of ordinary words.

    The trained vectors are all that exists of them: no other embedding can change, and the pipeline stays as it was.
    """

    def __init__(self, pipeline: DiffusionPipeline, triggers: list[str], vectors: int, initializers: list[str]) -> None:
        """Start all vectors of each trigger from the embedding of its initializer.

        Raises:
            InputError: an initializer is not a single token, or a trigger is one already.
        """
        self._pipeline = pipeline
        self._embedding = pipeline.text_encoder.get_input_embeddings()
        self._first = len(pipeline.tokenizer)
        rows = []
        for initializer in initializers:
            row = word_id(pipeline.tokenizer.backend_tokenizer, initializer)
            if row is None:
                problem = "is not one token of the base"
                raise InputError(f"initializer {initializer!r}", problem, "give a word that is")
            rows.append(self._embedding.weight[row].detach().float())
        self.vectors = torch.nn.Parameter(torch.stack(rows)[:, None].repeat(1, vectors, 1))
        self._triggers = triggers
        self._tokenizers = []
        for token in self.tokens:
            tokenizer = copy.deepcopy(pipeline.tokenizer)
            if tokenizer.add_tokens(token.names) != vectors or set(token.names) & pipeline.tokenizer.get_vocab().keys():
                problem = "is an ordinary token of the base"
                raise InputError(f"trigger {token.trigger!r}", problem, "give another, for example in angle brackets")
            self._tokenizers.append(tokenizer)
        self._ids: dict[tuple[int, str], torch.Tensor] = {}

    @classmethod
    def of(cls, pipeline: DiffusionPipeline, lessons: Lessons, vectors: int) -> Self:
        """Return tokens for the triggers of lessons; raises as the constructor."""
        return cls(pipeline, [x.trigger for x in lessons], vectors, [x.initializer for x in lessons])

    @torch.no_grad()
    def randomize(self, seed: int) -> None:
        """Replace all vectors by Gaussian noise of their own standard deviation."""
        random = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn(self.vectors.shape, generator=random)
        self.vectors.copy_(noise * self.vectors.std().cpu())

    @property
    def tokens(self) -> list[Token]:
        """The tokens as they are now, one per subject."""
        vectors = self.vectors.detach().cpu().clone()
        return [Token(trigger, {ENCODER: own}) for trigger, own in zip(self._triggers, vectors, strict=True)]

    def encode(self, captions: list[str]) -> torch.Tensor:
        """Return embeddings (N, 77, width) of captions, with a gradient.

        Args:
            captions: one subject's after another's, equally many of each.
        """
        each = len(captions) // len(self._triggers)
        ids = torch.cat([self._tokenize(k // each, caption) for k, caption in enumerate(captions)])
        ids = ids.to(self._pipeline.device)
        subject = torch.arange(len(captions), device=ids.device)[:, None] // each
        new = ids >= self._first

        def insert(module: object, args: object, rows: torch.Tensor) -> torch.Tensor:
            return torch.where(new[..., None], self.vectors[subject, (ids - self._first).clamp(min=0)], rows)

        handle = self._embedding.register_forward_hook(insert)
        try:
            hidden: torch.Tensor = self._pipeline.text_encoder(ids.masked_fill(new, 0)).last_hidden_state
        finally:
            handle.remove()
        return hidden

    def _tokenize(self, subject: int, caption: str) -> torch.Tensor:
        key = (subject, caption)
        if key not in self._ids:
            tokenizer = self._tokenizers[subject]
            text = self._pipeline.maybe_convert_prompt(caption, tokenizer)
            length = self._pipeline.tokenizer.model_max_length
            encoded = tokenizer(text, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            self._ids[key] = encoded.input_ids
        return self._ids[key]
