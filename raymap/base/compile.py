"""What makes a pipeline faster at the price of other last bits: memory layout and compilation, both opt-in."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from diffusers import DiffusionPipeline

from raymap.base.pipeline import denoiser_of
from raymap.study.model import SpeedSettings


def speed_up(pipeline: DiffusionPipeline, speed: SpeedSettings) -> None:
    """Lay out denoiser and decoder as the settings say, and have them compiled, which happens at the first batch."""
    denoiser = denoiser_of(pipeline)
    if speed.channels_last:
        for module in (denoiser, pipeline.vae):
            module.to(memory_format=torch.channels_last)
    if speed.compile != "none":
        for module in (denoiser, pipeline.vae.decoder):
            module.compile(mode=speed.compile)


def compiled_once(speed: SpeedSettings) -> AbstractContextManager[None]:
    """Return a context in which a compiled pipeline raises RuntimeError instead of compiling again.

    It is entered after the first batch: newly compiled code may compute other last bits, and the two images of a pair
    have to be computed alike.
    """
    if speed.compile == "none":
        return contextlib.nullcontext()
    return torch.compiler.set_stance("fail_on_recompile")
