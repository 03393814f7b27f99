"""The proof that an adapter leaves a prompt's images as the base draws them."""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import DiffusionPipeline

from raymap.adapters.resident import AdapterStore
from raymap.base.families.registry import family_of
from raymap.drawing.prompts import Encoding, PromptEncoder, flat
from raymap.drawing.sampling import call_of
from raymap.study.model import SamplerSettings


def unchanged(
    pipeline: DiffusionPipeline,
    store: AdapterStore,
    encoder: PromptEncoder,
    sampler: SamplerSettings,
    adapter: str,
    prompts: list[str],
    adapted: list[str] | None = None,
) -> list[bool]:
    """Return for each prompt whether an adapter provably leaves its images as they are.

    The proof: no weight of a denoiser is touched, and everything that `encode_prompt` returns for the prompt, negative
    side and masks included, is bit-equal to what it returns under the base. The adapter is in force afterwards.

    Args:
        adapted: the prompts that are drawn under the adapter, where they differ from the base's.
    """
    if store.touches_denoiser(adapter):
        store.swap(adapter)
        return [False] * len(prompts)
    store.swap(None)
    own = encodings(pipeline, encoder, sampler, prompts)
    store.swap(adapter)
    other = encodings(pipeline, encoder, sampler, adapted or prompts)
    # The host waits for the device at each question, so that the whole batch is one.
    equal = [_equal(a, b) for a, b in zip(own, other, strict=True)]
    return [bool(answer) for answer in torch.stack(equal).tolist()]


@torch.no_grad()
def encodings(
    pipeline: DiffusionPipeline, encoder: PromptEncoder, sampler: SamplerSettings, prompts: list[str]
) -> list[list[Encoding]]:
    """Return everything that `encode_prompt` returns for each prompt in a call of the pipeline, under the adapter in
    force; the call is broken off before its first step."""
    family, scheduler = family_of(pipeline), pipeline.scheduler
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def stop(*args: Any, **kwargs: Any) -> None:
        raise _EncodedError

    batches = [[prompt] for prompt in prompts] if family.one_prompt else [prompts]
    found: list[list[Encoding]] = []
    for batch in batches:
        with encoder.noting(len(batch)) as seen:
            scheduler.set_timesteps = stop
            try:
                pipeline(**call_of(pipeline, batch, (0,) * len(batch), sampler))
            except _EncodedError:
                found += seen
            finally:
                del scheduler.set_timesteps
    return found


class _EncodedError(Exception):
    """A pipeline has encoded its prompts and is about to draw."""


def _equal(own: list[Encoding], other: list[Encoding]) -> torch.Tensor:
    """Return whether two lists of encodings are bit-equal, as a tensor on their device."""
    a, b = list(flat(own)), list(flat(other))
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return torch.tensor(False, device=a[0].device)
    return torch.stack([(x == y).all() for x, y in zip(a, b, strict=True)]).all()
