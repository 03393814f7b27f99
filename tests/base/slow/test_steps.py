"""A scheduler asks the denoiser as often as is foretold."""

from __future__ import annotations

import pytest
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler, PNDMScheduler

from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.study.model import SamplerSettings


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [(DPMSolverMultistepScheduler, 4), (PNDMScheduler, 5), (HeunDiscreteScheduler, 7)],
)
def test_steps_of_the_denoiser_are_those_that_a_drawing_takes(scheduler: type, expected: int) -> None:
    pipeline = load(PIPELINE)
    more = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **more)  # type: ignore[attr-defined]
    sampler = SamplerSettings(steps=4)
    seen: list[tuple[int, int]] = []
    draw(pipeline, PromptEncoder(pipeline), ["a red car"], (0,), sampler, 1, lambda *at: seen.append(at))
    assert seen == [(step, expected) for step in range(expected)]
