"""What makes a pipeline faster at the price of last bits: memory layout and compilation, both opt-in."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from diffusers import StableDiffusionPipeline

from raymap.study.model import SpeedSettings


def speed_up(pipeline: StableDiffusionPipeline, speed: SpeedSettings) -> None:
    """Lay out denoiser and decoder as settings say, and have them compiled, which happens at the first batch."""
    if speed.channels_last:
        for module in (pipeline.unet, pipeline.vae):
            module.to(memory_format=torch.channels_last)
    if speed.compile != "none":
        for module in (pipeline.unet, pipeline.vae.decoder):
            module.compile(mode=speed.compile)


def compiled_once(speed: SpeedSettings) -> AbstractContextManager[None]:
    """Return a context in which a compiled pipeline that would compile anew raises RuntimeError.

    To be entered once a first batch is drawn. Code compiled anew may compute other last bits, and the two pictures of
    a pair have to be computed alike.
    """
    if speed.compile == "none":
        return contextlib.nullcontext()
    return torch.compiler.set_stance("fail_on_recompile")
