"""Training: optimizer steps of LoRA and of the embedded methods per second, by number format and number of subjects."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.drawing import Rows
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import synchronize
from raymap.bench.models import random_base
from raymap.embedded.world.subjects import STAR_CUP
from raymap.personalize.lessons import Lesson, trainer_of
from raymap.study.methods.registry import METHODS

METHOD = "lora"


def training(sizes: Sizes) -> Rows:
    """Measure steps of LoRA's reference recipe, counted once per subject, for one subject and for five in one batch."""
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("float32 with TF32", torch.float32, True),
        ("bfloat16 mixed", torch.bfloat16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        for subjects in (1, 5):
            yield f"training, {name}, {subjects} subjects", {"steps_per_s": steps_per_second(sizes, dtype, subjects)}
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True  # torch's own defaults


def steps_per_second(sizes: Sizes, dtype: torch.dtype, subjects: int) -> float:
    """Return the optimizer steps per second, each counted once per subject, without the work before the first step."""
    pipeline = random_base(sizes.base.removeprefix("random:"), sizes.device, dtype)
    method = METHODS[METHOD]
    recipe = method.recipe.model_validate(
        method.settings({"preset": f"reference-{METHOD}"}) | {"steps": 10 + sizes.training_steps}
    )
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    times = []
    with tempfile.TemporaryDirectory() as scratch:
        lessons = tuple(_lesson(k, side, Path(scratch)) for k in range(subjects))
        for _ in trainer_of(METHOD)(pipeline, lessons, recipe, Path(scratch) / "checkpoint.pt"):
            synchronize(sizes.device)
            times.append(time.perf_counter())
    return subjects * sizes.training_steps / (times[-1] - times[0])


def _lesson(subject: int, side: int, folder: Path) -> Lesson:
    random = np.random.default_rng(subject)
    images = np.stack([STAR_CUP.render(random) for _ in range(5)])
    repeats = side // images.shape[1] or 1
    images = images.repeat(repeats, 1).repeat(repeats, 2)[:, :side, :side]
    return Lesson(images, "sks", ("a photo of sks cup",), "a photo of cup", "cup", folder / str(subject))
