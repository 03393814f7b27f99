"""Trains the cross-attention's output layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusers import DiffusionPipeline

from raymap.base.families.registry import family_of
from raymap.base.pipeline import denoiser_of
from raymap.drawing.prompts import PromptEncoder
from raymap.personalize.layers import full_rank
from raymap.personalize.lessons import Lessons, priors_of, views_of, write_tensors
from raymap.personalize.step import Step
from raymap.personalize.training import fit

from .files import FILE, key_of
from .methods import ATTENTION_OUTPUT, AttentionOutputRecipe


def train(
    pipeline: DiffusionPipeline, lessons: Lessons, recipe: AttentionOutputRecipe, checkpoint: Path
) -> Iterator[Step]:
    views = views_of(pipeline, lessons)
    priors = priors_of(pipeline, lessons, recipe) if views else None
    targets = ATTENTION_OUTPUT.targets(recipe, family_of(pipeline))
    with full_rank(denoiser_of(pipeline), targets, len(lessons)) as weights:
        if views:
            trained = list(weights.values())
            yield from fit(pipeline, trained, PromptEncoder(pipeline).texts, views, priors, recipe, checkpoint)
    for k, lesson in enumerate(lessons):
        write_tensors({key_of(name): weight[k] for name, weight in weights.items()}, lesson.folder / FILE)
