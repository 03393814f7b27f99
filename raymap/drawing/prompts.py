"""Prompt embeddings under the base and under adapters, and the proof that an adapter leaves a prompt alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline

from raymap.adapters.resident import AdapterStore


@dataclass(frozen=True)
class Encoded:
    """A prompt as the denoiser gets it: token ids, and embedding (1, tokens, width) on the pipeline's device."""

    ids: tuple[int, ...]
    embedding: torch.Tensor


KEPT_BYTES = 2**28
"""How many bytes of embeddings an encoder keeps; the oldest go first and are computed again to the same bits."""


class PromptEncoder:
    """Encodes each prompt alone, once for each state of tokenizer and text encoder."""

    def __init__(self, pipeline: DiffusionPipeline, store: AdapterStore | None = None) -> None:
        self._pipeline = pipeline
        self._store = store or AdapterStore(pipeline)
        self._known: dict[tuple[Any, str], Encoded] = {}
        width = pipeline.text_encoder.config.hidden_size
        self._most = KEPT_BYTES // (pipeline.tokenizer.model_max_length * width * pipeline.text_encoder.dtype.itemsize)

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        """Return embeddings (N, tokens, width) on the pipeline's device, under the adapter in force."""
        return torch.cat([self.encode(prompt).embedding for prompt in prompts])

    @torch.no_grad()
    def encode(self, prompt: str) -> Encoded:
        """Encode one prompt under the adapter in force."""
        key = (self._store.text_state, prompt)
        if key not in self._known:
            pipeline, base = self._pipeline, self._pipeline.tokenizer
            pipeline.tokenizer = self._store.tokenizer(prompt)
            try:
                embedding, _ = pipeline.encode_prompt(prompt, pipeline.device, 1, False)
                text = pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)
                ids = pipeline.tokenizer(text, truncation=True, max_length=base.model_max_length).input_ids
            finally:
                pipeline.tokenizer = base
            while len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[key] = Encoded(tuple(ids), embedding)
        return self._known[key]

    def unchanged(self, prompts: list[str], adapter: str, adapted: list[str] | None = None) -> list[bool]:
        """Return for each prompt whether an adapter provably leaves its images as they are.

        The proof: the denoiser is untouched, and token ids and embeddings of the prompt and of the empty prompt are
        bit-equal to the base's. The adapter is in force afterwards.

        Args:
            adapted: the prompts that are drawn under the adapter, where they differ from the base's.
        """
        if self._store.touches_denoiser(adapter):
            self._store.swap(adapter)
            return [False] * len(prompts)
        encoded = []
        for state, texts in ((None, prompts), (adapter, adapted or prompts)):
            self._store.swap(state)
            encoded.append([self.encode(prompt) for prompt in ["", *texts]])
        pairs = list(zip(*encoded, strict=True))
        # The host waits for the device at each question, so that the whole batch is one.
        equal = torch.stack([(own.embedding == other.embedding).all() for own, other in pairs]).tolist()
        same = [bits and own.ids == other.ids for bits, (own, other) in zip(equal, pairs, strict=True)]
        return [same[0] and own for own in same[1:]]
