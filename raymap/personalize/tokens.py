"""New tokens while they are learned: their rows are parameters beside the frozen token embedding."""

from __future__ import annotations

import copy

import torch
from diffusers import StableDiffusionPipeline

from raymap.adapters.update import Token
from raymap.base.skeleton import word_id
from raymap.errors import InputError


class LearnedTokens:
    """Triggers of one or more vectors, one for each subject, started from ordinary words' rows.

    The trained rows are all that exists of them: no other row can change, and the pipeline stays as it was.
    """

    def __init__(
        self, pipeline: StableDiffusionPipeline, triggers: list[str], vectors: int, initializers: list[str]
    ) -> None:
        """Start each trigger's rows, all alike, from its initializer's.

        Raises:
            InputError: when an initializer is not a single token, or a trigger is one already.
        """
        self._pipeline = pipeline
        self._embedding = pipeline.text_encoder.get_input_embeddings()
        self._first = len(pipeline.tokenizer)
        rows = []
        for initializer in initializers:
            row = word_id(pipeline.tokenizer.backend_tokenizer, initializer)
            if row is None:
                problem = "is not one token of the base"
                raise InputError(f"initializer {initializer!r}", problem, "give a word that is one")
            rows.append(self._embedding.weight[row].detach().float())
        self.vectors = torch.nn.Parameter(torch.stack(rows)[:, None].repeat(1, vectors, 1))
        self._triggers = triggers
        self._tokenizers = []
        for token in self.tokens:
            tokenizer = copy.deepcopy(pipeline.tokenizer)
            if tokenizer.add_tokens(token.names) != vectors or set(token.names) & pipeline.tokenizer.get_vocab().keys():
                problem = "is an ordinary token of the base"
                raise InputError(f"trigger {token.trigger!r}", problem, "give another, say in angle brackets")
            self._tokenizers.append(tokenizer)
        self._ids: dict[tuple[int, str], torch.Tensor] = {}

    @property
    def tokens(self) -> list[Token]:
        """The tokens as they are now, one for each subject."""
        vectors = self.vectors.detach().cpu().clone()
        return [Token(trigger, own) for trigger, own in zip(self._triggers, vectors, strict=True)]

    def encode(self, captions: list[str]) -> torch.Tensor:
        """Return embeddings (N, 77, width) of captions, as many of each subject in turn, with a gradient."""
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
