"""Draws under base and adapter in step with each other: two unmodified calls of a pipeline take turns at its denoiser.

No pipeline's loop is written again, so that any family's images are those that it draws by itself, to the bit.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from raymap.adapters.resident import AdapterStore
from raymap.base.parts import parts_in
from raymap.drawing.attention.turns import Turns
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import stepping


@dataclass(frozen=True)
class Pass:
    """One forward pass of a denoiser, about to be done under the base or (`adapted`) under the adapter.

    `number` counts from 0 within the denoising step `step`. Where guidance takes two passes, the prompt's comes first
    in every pipeline of diffusers; where one pass serves both sides, the prompt's items are the last of the batch.
    """

    adapted: bool
    step: int
    number: int
    denoiser: nn.Module
    latents: torch.Tensor
    forward: Callable[[torch.Tensor], Any]

    def run(self) -> Any:
        """Return what the denoiser makes of the latents that it was given."""
        return self.forward(self.latents)


def lockstep(
    pipeline: DiffusionPipeline,
    encoder: PromptEncoder,
    store: AdapterStore,
    adapter: str,
    arguments: Callable[[], dict[str, Any]],
    do: Callable[[Pass], Any] = Pass.run,
) -> tuple[Any, Any]:
    """Call a pipeline under the base and under an adapter, pass by pass of the denoiser in turn, the base first.

    One of the two calls runs at a time. Whenever one resumes, its weights and tokens are put in force, so that each
    encodes its prompts and decodes its images under its own.

    Args:
        arguments: returns the arguments of a call; it is asked once for each, because random generators have a state.
        do: does a pass and returns what the pipeline is to get of it, in the place of the denoiser.

    Returns:
        What the pipeline returned under the base, and under the adapter. The adapter may be in force afterwards.

    Raises:
        Exception: what one of the calls raised; the other was broken off.
    """
    both = (pipeline, _twin(pipeline))
    at = [[0, 0], [0, 0]]  # step and pass within it, of the base and of the adapted model
    turns = Turns(lambda number: store.swap(adapter if number else None))

    def instead(denoiser: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def passing(*args: Any, **kwargs: Any) -> Any:
            # The first argument of every denoiser is what is denoised; transformers get it by its name.
            latents, *others = args or (kwargs.pop("hidden_states"),)
            step, number = at[turns.me]
            at[turns.me][1] += 1
            own = Pass(bool(turns.me), step, number, denoiser, latents, lambda given: forward(given, *others, **kwargs))
            output = do(own)
            turns.hand_over()
            return output

        return passing

    def call(number: int) -> Any:
        def before_step(step: int, steps: int) -> None:
            at[number] = [step, 0]

        own = both[number]
        with torch.no_grad(), encoder.in_place(own), stepping(own.scheduler, before_step):
            return own(**arguments())

    with contextlib.ExitStack() as stack:
        for name in parts_in(pipeline).denoisers:
            stack.enter_context(_replaced(getattr(pipeline, name), instead))
        return turns.run(lambda: call(0), lambda: call(1))


def _twin(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """Return a pipeline over the same modules and tokenizers, with copies of all parts that have a state."""
    twin = copy.copy(pipeline)
    shared = parts_in(pipeline).tokenizers.values()
    for name, part in pipeline.components.items():
        if part is not None and name not in shared and not isinstance(part, nn.Module):
            setattr(twin, name, copy.deepcopy(part))
    return twin


@contextlib.contextmanager
def _replaced(
    module: nn.Module, instead: Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Replace a module's forward, which may be replaced already (by what moves weights to a device when needed)."""
    before = vars(module).get("forward")
    module.forward = instead(module, module.forward)
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
