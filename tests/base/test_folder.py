"""What decides a base: the files that loading it reads, and how often its scheduler asks the denoiser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler, PNDMScheduler

from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.study.model import SamplerSettings


def test_what_the_hubs_cache_lays_beside_a_base_does_not_change_it(tmp_path: Path) -> None:
    own = Base.at(PIPELINE).sha256
    (beside := tmp_path / "beside").mkdir()
    shutil.copytree(PIPELINE, beside, dirs_exist_ok=True)
    for name in (
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/model.fp16-00001-of-00002.safetensors",
        "safety_checker/model.safetensors",
        "v1-5-pruned.safetensors",
    ):
        (beside / name).parent.mkdir(exist_ok=True)
        (beside / name).write_bytes(b"another program asked for it")
    assert Base.at(beside).sha256 == own
    (other := tmp_path / "other").mkdir()
    shutil.copytree(PIPELINE, other, dirs_exist_ok=True)
    with (other / "scheduler" / "scheduler_config.json").open("a") as file:
        file.write(" ")
    assert Base.at(other).sha256 != own


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
