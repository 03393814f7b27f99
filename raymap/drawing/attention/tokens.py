"""What a prompt's text keys mean, so that its words are reported apart from begin, end and padding."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from diffusers import DiffusionPipeline

from raymap.adapters.resident import AdapterStore
from raymap.base.families.family import Family
from raymap.base.families.registry import family_of
from raymap.base.parts import TEXT, parts_in
from raymap.base.pipeline import denoiser_of
from raymap.drawing.attention.watch import text_attentions
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import call_of
from raymap.study.model import SamplerSettings

CLASSES = ("content", "bos", "end", "padding")
"""Tokens of the prompt's words; the begin token; the end token after the words, which has read the prompt; all others,
such as padding, a template around the prompt, and what a denoiser adds of its own."""
CONTENT, BOS, END, PADDING = range(len(CLASSES))


@dataclass(frozen=True)
class Reading:
    """How a prompt is read: the class of each of its text keys, and the pieces of its words.

    `positions` are those of the pieces among the keys, and `timesteps` the scheduler's, from noise to image.
    """

    classes: tuple[int, ...]
    positions: tuple[int, ...]
    pieces: tuple[str, ...]
    timesteps: tuple[float, ...]


def class_masks(readings: Sequence[Reading]) -> torch.Tensor:
    """Return which keys belong to which class, float32 (prompts, keys, classes); each belongs to one."""
    classes = torch.tensor([reading.classes for reading in readings])
    return torch.nn.functional.one_hot(classes, len(CLASSES)).float()


def read_prompt(pipeline: DiffusionPipeline, store: AdapterStore, sampler: SamplerSettings, prompt: str) -> Reading:
    """Return how a prompt is read under the base, which is in force afterwards.

    The pipeline's own call is followed until its denoiser first makes keys of the text, and then broken off. What its
    text encoders are given on the way tells where the words of the prompt are.
    """
    store.swap(None)
    family, parts = family_of(pipeline), parts_in(pipeline)
    layer = next(iter(text_attentions(denoiser_of(pipeline), family).values()))
    read: dict[str, list[int]] = {}
    keys = 0

    def noting(name: str) -> Any:
        def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
            read.setdefault(name, ids[0].tolist())  # the prompt comes before the negative one

        return note

    def stop(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal keys
        keys = args[0].shape[1]
        raise _ReadError

    with contextlib.ExitStack() as stack:
        for name in parts.encoders:
            hook = getattr(pipeline, name).register_forward_pre_hook(noting(name), with_kwargs=True)
            stack.callback(hook.remove)
        stack.callback(layer.key.register_forward_pre_hook(stop).remove)
        stack.enter_context(torch.no_grad())
        # An encoder that remembers nothing, so that the text encoders run.
        stack.enter_context(PromptEncoder(pipeline, store).in_place())
        with contextlib.suppress(_ReadError):
            pipeline(**call_of(pipeline, [prompt], (0,), sampler))
    timesteps = tuple(float(t) for t in pipeline.scheduler.timesteps)
    classes: list[int] = []
    words: list[tuple[int, str]] = []
    for name in family.text_layout:
        if not name.startswith(TEXT):
            classes += [PADDING] * getattr(denoiser_of(pipeline), name).shape[1]
        elif name in read:
            tokenizer = getattr(pipeline, parts.tokenizers[name])
            ids = _attended(read[name], pipeline, family, keys)
            own, content = classify(ids, prompt, getattr(tokenizer, "tokenizer", tokenizer))
            if not words:
                pieces = getattr(tokenizer, "tokenizer", tokenizer).convert_ids_to_tokens([ids[k] for k in content])
                words = list(zip((len(classes) + k for k in content), pieces, strict=True))
            classes += own
    classes += [PADDING] * (keys - len(classes))
    positions, pieces = zip(*words, strict=True) if words else ((), ())
    return Reading(tuple(classes[:keys]), positions, pieces, timesteps)


class _ReadError(Exception):
    """A prompt has been read."""


def _attended(ids: list[int], pipeline: DiffusionPipeline, family: Family, keys: int) -> list[int]:
    """Return the tokens that are attended to, of those that a text encoder got.

    Some pipelines drop the beginning of their template; Sana keeps the begin token and the last ones.
    """
    ids = ids[getattr(pipeline, "prompt_template_encode_start_idx", 0) :]
    return [*ids[:1], *ids[len(ids) - keys + 1 :]] if len(family.text_layout) == 1 and len(ids) > keys else ids


def classify(ids: list[int], prompt: str, tokenizer: Any) -> tuple[list[int], range]:
    """Return the class of each token that a text encoder reads, and which of them are the prompt's words.

    The words are found as the last longest run of the tokens that the prompt has by itself: as it is, in lower case as
    some pipelines write it, or after a blank, as within a template.
    """
    plain = prompt.strip()
    content = range(0)
    for text in (prompt, plain, plain.lower(), f" {plain}", f" {plain.lower()}"):
        own = tokenizer(text, add_special_tokens=False).input_ids
        matcher = SequenceMatcher(None, ids[::-1], own[::-1], autojunk=False)  # reversed: of equal runs, the last
        match = matcher.find_longest_match()
        if match.size > len(content):
            stop = len(ids) - match.a
            content = range(stop - match.size, stop)
        if len(content) == len(own):
            break
    classes = [PADDING] * len(ids)
    for k in content:
        classes[k] = CONTENT
    begins = ids[:1] != [] and ids[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id) and 0 not in content
    if begins:
        classes[0] = BOS
    after = content.stop if content else int(begins)
    if after < len(ids) and ids[after] in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        classes[after] = END
    return classes, content
