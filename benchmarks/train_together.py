"""Measures optimizer steps per second of subjects trained in one batch and one after another, in one run.

    python -m benchmarks.train_together [--subjects 1 2 3 5] [--steps 20] [--repeats 3] [--size embedded|sd15]
        [--device cpu|cuda] [--threads 2]

The rates count each subject's steps, so that a step of N subjects in one batch counts as N. The work before the first
step (encoding, class images) is not included. The recipes are the embedded presets. `sd15` is a UNet of Stable
Diffusion 1.5's size with random weights, trained with the reference recipes. Both ways of training alternate within a
repeat; the table has medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from rich.console import Console
from rich.table import Table

from raymap.base.pipeline import load
from raymap.embedded.model import PIPELINE
from raymap.embedded.world.subjects import STAR_CUP
from raymap.personalize.lessons import Lesson, trainer_of
from raymap.study.methods.method import Method
from raymap.study.methods.registry import METHODS
from raymap.study.recipes import Recipe


def sized(size: str) -> StableDiffusionPipeline:
    """Return the embedded pipeline; for `sd15` with a UNet of SD 1.5's size that takes the embedded text features."""
    pipeline = load(PIPELINE)
    if size == "sd15":
        width = pipeline.text_encoder.config.hidden_size
        pipeline.unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=width).eval().requires_grad_(False)
    return pipeline


def lesson(subject: int, method: Method[Any], side: int, folder: Path) -> Lesson:
    """Return the lesson of one drawn subject, with references of its own, `side` pixels wide."""
    rng = np.random.default_rng(subject)
    images = np.stack([STAR_CUP.render(rng) for _ in range(5)])
    images = images.repeat(side // images.shape[1], 1).repeat(side // images.shape[2], 2)
    trigger = f"<s{subject}>" if method.learns_token else "sks"
    return Lesson(images, trigger, (f"a photo of {trigger}",), "a photo of cup", "cup", folder / str(subject))


def seconds(
    method: str,
    pipeline: StableDiffusionPipeline,
    lessons: tuple[Lesson, ...],
    recipe: Recipe,
    checkpoint: Path,
    steps: int,
) -> float:
    """Return the seconds of a training's last `steps` steps, after ten steps of warm-up."""
    times = []
    for _ in trainer_of(method)(pipeline, lessons, recipe.model_copy(update={"steps": 10 + steps}), checkpoint):
        if pipeline.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
    return times[-1] - times[0]


def main() -> None:
    """Print a row for each method and number of subjects."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, nargs="+", default=[1, 2, 3, 5], help="numbers of subjects")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", choices=("embedded", "sd15"), default="embedded")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="threads on the CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = sized(args.size).to(args.device)
    side = 64 if args.size == "embedded" else 256  # the embedded autoencoder shrinks by 4: latents of 16 or 64
    kind = "embedded" if args.size == "embedded" else "reference"
    table = Table(title=f"optimizer steps of all subjects per second, {args.size} base, {args.device}")
    for name in ("method", "batch per subject", "subjects", "one after another", "together", "ratio"):
        table.add_column(name, justify="left" if name == "method" else "right")
    with tempfile.TemporaryDirectory() as scratch:
        folder, checkpoint = Path(scratch), Path(scratch) / "checkpoint.pt"
        for name, method in METHODS.items():
            settings = method.settings({"preset": f"{kind}-{name}", "class_images": 8})
            recipe = method.recipe.model_validate(settings)
            for n in args.subjects:
                lessons = tuple(lesson(k, method, side, folder) for k in range(n))
                alone, joint = [], []
                for _ in range(args.repeats):
                    alone.append(sum(seconds(name, pipeline, (x,), recipe, checkpoint, args.steps) for x in lessons))
                    joint.append(seconds(name, pipeline, lessons, recipe, checkpoint, args.steps))
                one, other = (n * args.steps / statistics.median(times) for times in (alone, joint))
                table.add_row(name, str(recipe.batch_size), str(n), f"{one:.2f}", f"{other:.2f}", f"{other / one:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
