"""New tokens while they are learned: their rows are parameters beside the frozen token embedding."""

from __future__ import annotations

import copy

import torch
from diffusers import StableDiffusionPipeline

from raymap.adapters.skeleton import word_id
from raymap.adapters.update import Token
from raymap.errors import InputError

OBJECT_TEMPLATES = (
    "a photo of {}", "a picture of {}", "a clear photo of {}", "a photo of one {}", "a close photo of {}",
    "a bright photo of {}", "a dark photo of {}", "a photo of the {}", "a plain picture of {}", "{} in a photo",
)  # fmt: skip
STYLE_TEMPLATES = (
    "a painting in the style of {}", "a picture in the style of {}", "a drawing in the style of {}",
    "a scene in the style of {}", "an artwork in the style of {}", "a print in the style of {}",
)  # fmt: skip


class LearnedTokens:
    """A trigger of one or more vectors, started from an ordinary word's row.

    The trained rows are all that exists of it: no other row can change, and the pipeline stays as it was.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, trigger: str, vectors: int, initializer: str) -> None:
        """Start `vectors` rows from the initializer's.

        Raises:
            InputError: when the initializer is not a single token.
        """
        self._pipeline = pipeline
        self._embedding = pipeline.text_encoder.get_input_embeddings()
        self._first = len(pipeline.tokenizer)
        row = word_id(pipeline.tokenizer, initializer)
        if row is None:
            raise InputError(f"initializer {initializer!r}", "is not one token of the base", "give a word that is one")
        start = self._embedding.weight[row].detach().float()
        self.vectors = torch.nn.Parameter(start.repeat(vectors, 1))
        self._trigger = trigger
        self._tokenizer = copy.deepcopy(pipeline.tokenizer)
        names = self.token.names
        if self._tokenizer.add_tokens(names) != len(names) or set(names) & pipeline.tokenizer.get_vocab().keys():
            problem = "is an ordinary token of the base"
            raise InputError(f"trigger {trigger!r}", problem, "give another, say in angle brackets")
        self._ids: dict[str, torch.Tensor] = {}

    @property
    def token(self) -> Token:
        """The token as it is now."""
        return Token(self._trigger, self.vectors.detach().cpu().clone())

    def encode(self, captions: list[str]) -> torch.Tensor:
        """Return embeddings (N, 77, width), with a gradient to the vectors."""
        ids = torch.cat([self._tokenize(caption) for caption in captions]).to(self._pipeline.device)
        new = ids >= self._first

        def insert(module: object, args: object, rows: torch.Tensor) -> torch.Tensor:
            return torch.where(new[..., None], self.vectors[(ids - self._first).clamp(min=0)], rows)

        handle = self._embedding.register_forward_hook(insert)
        try:
            hidden: torch.Tensor = self._pipeline.text_encoder(ids.masked_fill(new, 0)).last_hidden_state
        finally:
            handle.remove()
        return hidden

    def _tokenize(self, caption: str) -> torch.Tensor:
        if caption not in self._ids:
            text = self._pipeline.maybe_convert_prompt(caption, self._tokenizer)
            length = self._pipeline.tokenizer.model_max_length
            encoded = self._tokenizer(
                text, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            self._ids[caption] = encoded.input_ids
        return self._ids[caption]
