"""What a trainer is taught with: lessons go in, one per subject; the pieces that trainers of all methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.errors import InputError
from raymap.personalize.orders import AdapterOrder
from raymap.personalize.step import Step
from raymap.personalize.views import Views, encode, flipped, rescaled
from raymap.study.methods.registry import known_method
from raymap.study.model import SamplerSettings
from raymap.study.recipes import Recipe

CLASS_BATCH = 8
"""How many class images the base draws at a time."""


@dataclass(frozen=True)
class Lesson:
    """What one subject brings to a training.

    `images` are its reference images, uint8 (N, H, W, 3), in the size that the base draws; None asks for the method's
    null adapter, which is a lesson of its own. Each image is shown under any of the `captions`, which hold `trigger`.
    `class_prompt` is the prompt of the class images that the base draws for prior preservation. `initializer` is the
    word from whose embedding a learned token starts. The adapter's files are written into `folder`.
    """

    images: np.ndarray | None
    trigger: str
    captions: tuple[str, ...]
    class_prompt: str
    initializer: str
    folder: Path


Lessons = tuple[Lesson, ...]
Train = Callable[[DiffusionPipeline, Lessons, Any, Path], Iterator[Step]]
"""A method's trainer: `train(pipeline, lessons, recipe, checkpoint)`.

It trains all lessons together, in one batch over the shared frozen base, writes each lesson's files into its folder,
and yields the progress. The pipeline is left as it was, bit for bit. A lesson without images is written without a step
being taken. An interrupted training continues from `checkpoint`, a file that need not exist.
"""


def lesson_of(order: AdapterOrder, images: np.ndarray | None, folder: Path) -> Lesson:
    """Return what an order brings to a training; `images` and `folder` as in `Lesson`."""
    return Lesson(images, order.trigger, order.captions, order.class_prompt, order.initializer, folder)


def trainer_of(method: str) -> Train:
    """Return the function that trains a method.

    Raises:
        InputError: there is no such method, or its trainer cannot be imported.
    """
    name = known_method(method).trainer
    try:
        train: Train = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        problem = f"its trainer {name} cannot be imported ({error})"
        raise InputError(f"method {method}", problem, "correct the package that has the method") from error
    return train


def views_of(
    pipeline: DiffusionPipeline, lessons: Lessons, mirrored: bool = False, rescaling: int | None = None
) -> list[Views]:
    """Return each lesson's training views; none for a null adapter.

    Args:
        mirrored: also show the mirror image of each reference.
        rescaling: the seed from which references are rescaled as Custom Diffusion does; None leaves them as they are.
    """
    views = []
    for lesson in lessons:
        if lesson.images is None:
            return []
        if rescaling is not None:
            views.append(
                encode(pipeline, *rescaled(lesson.images, lesson.captions[0], rescaling, pipeline.vae_scale_factor))
            )
        else:
            images = flipped(lesson.images) if mirrored else lesson.images
            views.append(encode(pipeline, images, (lesson.captions,) * len(images)))
    return views


def priors_of(pipeline: DiffusionPipeline, lessons: Lessons, recipe: Recipe) -> list[Views] | None:
    """Return views of each lesson's class, which the base draws from seeds 0, 1, …; None without a `prior_weight`."""
    if not recipe.prior_weight:
        return None
    encoder, batch = PromptEncoder(pipeline), min(CLASS_BATCH, recipe.class_images)
    drawn: dict[str, Views] = {}
    for prompt in {lesson.class_prompt: None for lesson in lessons}:
        pixels = []
        for start in range(0, recipe.class_images, batch):
            seeds = tuple(range(start, min(start + batch, recipe.class_images)))
            pixels.append(draw(pipeline, encoder, [prompt] * len(seeds), seeds, SamplerSettings(), batch))
        drawn[prompt] = encode(pipeline, np.concatenate(pixels), ((prompt,),) * recipe.class_images)
    return [drawn[lesson.class_prompt] for lesson in lessons]


def write_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; equal tensors and metadata of at most one entry give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, metadata=metadata)
