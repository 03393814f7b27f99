"""Encodes prompts by the pipeline's own `encode_prompt`: each alone, once under each state of the text side."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import TextualInversionLoaderMixin

from raymap.adapters.resident import AdapterStore
from raymap.base.parts import parts_in
from raymap.base.pipeline import own_of

KEPT_BYTES = 2**28
"""How many bytes of encodings an encoder keeps; the oldest go first and are computed again to the same bits."""

Encoding = tuple[Any, ...]
"""What `encode_prompt` returned for one prompt: tensors with a first axis of 1, lists of one, position ids, None."""


class PromptEncoder:
    """Stands in for a pipeline's `encode_prompt`: encodes each prompt alone and remembers what came of it.

    So an image depends neither on the prompts beside it nor on their number. What the outputs are called, and how many
    there are, is the pipeline's own affair, as is the negative side of guidance.
    """

    def __init__(self, pipeline: DiffusionPipeline, store: AdapterStore | None = None) -> None:
        self._pipeline = pipeline
        self._store = store or AdapterStore(pipeline)
        self._own: Callable[..., Any] = type(pipeline).encode_prompt.__get__(pipeline)
        self._signature = inspect.signature(self._own)
        self._known: dict[tuple[Any, ...], Encoding] = {}
        self._kept = 0
        self._seen: list[list[Encoding]] | None = None
        self._away: dict[str, torch.device] = {}

    @contextlib.contextmanager
    def in_place(self, twin: DiffusionPipeline | None = None) -> Iterator[None]:
        """Let the pipeline encode by this encoder, or instead a twin of it, which has the same modules."""
        pipeline = self._pipeline if twin is None else twin
        pipeline.encode_prompt = self
        try:
            yield
        finally:
            del pipeline.encode_prompt

    @contextlib.contextmanager
    def noting(self, prompts: int) -> Iterator[list[list[Encoding]]]:
        """Note what is encoded meanwhile: for each prompt of the pipeline's call, one encoding per request."""
        self._seen = [[] for _ in range(prompts)]
        try:
            with self.in_place():
                yield self._seen
        finally:
            self._seen = None

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Answer a request that the pipeline makes in its call, as `encode_prompt` would.

        Raises:
            RuntimeError: the encodings of the prompts are not of one length; a batch then has to hold a single prompt.
        """
        asked = dict(self._signature.bind(*args, **kwargs).arguments)
        prompts = asked.get("prompt")
        try:
            if not isinstance(prompts, list):
                self._fetch_encoders()
                return self._own(**asked)
            encoded = [self._alone(asked, len(prompts), k) for k in range(len(prompts))]
        finally:
            self._return_encoders()
        for seen, own in zip(self._seen or (), encoded, strict=False):
            seen.append(own)
        outputs = tuple(_joined(parts) for parts in zip(*encoded, strict=True))
        return outputs if len(outputs) > 1 else outputs[0]

    def texts(self, prompts: Sequence[str]) -> Any:
        """Return what `encode_prompt` gives for prompts without guidance, under the adapter in force."""
        return self(**text_arguments(self._pipeline, prompts))

    def _alone(self, asked: Mapping[str, Any], prompts: int, k: int) -> Encoding:
        """Encode the k-th prompt of a request."""
        own = {name: _of(name, value, prompts, k) for name, value in asked.items()}
        if own.get("batch_size") == prompts:
            own["batch_size"] = 1
        key = (self._store.text_state, *((name, repr(value)) for name, value in own.items()))
        if any(isinstance(value, torch.Tensor) for value in own.values()):
            return self._encoded(own)
        if key not in self._known:
            encoded = self._known[key] = self._encoded(own)
            self._kept += _bytes(encoded)
            while self._kept > KEPT_BYTES and len(self._known) > 1:
                self._kept -= _bytes(self._known.pop(next(iter(self._known))))
            return encoded
        return self._known[key]

    def _encoded(self, own: Mapping[str, Any]) -> Encoding:
        texts = [text for name, value in own.items() if name.startswith("prompt") for text in value or ()]
        self._fetch_encoders()
        with self._store.reading(" ".join(text for text in texts if isinstance(text, str))):
            if not isinstance(self._pipeline, TextualInversionLoaderMixin):  # which expands triggers itself
                own = {name: self._written_out(name, value) for name, value in own.items()}
            outputs = self._own(**own)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def _fetch_encoders(self) -> None:
        """Bring text encoders that wait in the host's memory to the pipeline's device, until they are returned.

        A pipeline of which every component is in the host's memory has its own means (`enable_model_cpu_offload`).
        """
        for name in parts_in(self._pipeline).encoders:
            encoder = getattr(self._pipeline, name)
            if encoder.device != self._pipeline.device:
                self._away[name] = encoder.device
                encoder.to(self._pipeline.device)

    def _return_encoders(self) -> None:
        for name, home in self._away.items():
            getattr(self._pipeline, name).to(home)
        self._away = {}

    def _written_out(self, name: str, value: Any) -> Any:
        """Return an argument with each trigger of several vectors followed by the names of its further ones."""
        if not name.startswith("prompt") or not isinstance(value, list):
            return value
        tokenizer = getattr(self._pipeline, name.replace("prompt", "tokenizer"), None) or self._pipeline.tokenizer
        return [expanded(text, tokenizer) if isinstance(text, str) else text for text in value]


def text_arguments(pipeline: DiffusionPipeline, prompts: Sequence[str]) -> dict[str, Any]:
    """Return the arguments with which a pipeline's `encode_prompt` encodes prompts without guidance."""
    arguments = {
        "prompt": list(prompts),
        "device": pipeline.device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": False,
        **own_of(pipeline).call,
    }
    for further in ("prompt_2", "prompt_3"):
        arguments[further] = list(prompts)
    takes = inspect.signature(type(pipeline).encode_prompt).parameters
    return {name: value for name, value in arguments.items() if name in takes}


def expanded(prompt: str, tokenizer: Any) -> str:
    """Return a prompt with each trigger of several vectors followed by the names of its further ones."""
    written: str = TextualInversionLoaderMixin._maybe_convert_prompt(None, prompt, tokenizer)
    return written


def _of(name: str, value: Any, prompts: int, k: int) -> Any:
    """Return the k-th prompt's share of an argument: of a list of prompts a list of one, of anything else all."""
    texts = isinstance(value, list) and len(value) == prompts and all(isinstance(text, str) for text in value)
    return [value[k]] if texts and name.startswith(("prompt", "negative_prompt")) else value


def _joined(parts: tuple[Any, ...]) -> Any:
    """Return one output for a batch: tensors and lists one after another; position ids, which have no batch, once."""
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if first.shape[0] != 1:
        return first
    if len({part.shape for part in parts}) > 1:
        raise RuntimeError("prompts of different lengths are in one batch")
    return torch.cat(parts)


def flat(encoding: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors of an encoding."""
    if isinstance(encoding, torch.Tensor):
        yield encoding
    elif isinstance(encoding, tuple | list):
        for part in encoding:
            yield from flat(part)


def _bytes(encoding: Encoding) -> int:
    return sum(tensor.nbytes for tensor in flat(encoding))
