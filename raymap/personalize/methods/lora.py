"""Trains DreamBooth-LoRA."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from diffusers import DiffusionPipeline
from peft import LoraConfig

from raymap.adapters.lora import LORA_FILE, METADATA
from raymap.base.families.registry import family_of
from raymap.base.parts import parts_in
from raymap.base.pipeline import denoiser_of
from raymap.drawing.prompts import PromptEncoder
from raymap.personalize.layers import low_rank
from raymap.personalize.lessons import Lessons, priors_of, views_of, write_tensors
from raymap.personalize.step import Step
from raymap.personalize.training import fit
from raymap.study.methods.lora import LORA, LoraRecipe


def train(pipeline: DiffusionPipeline, lessons: Lessons, recipe: LoraRecipe, checkpoint: Path) -> Iterator[Step]:
    """Write `pytorch_lora_weights.safetensors`, with alpha in its metadata.

    Follows diffusers' `train_dreambooth_lora.py` and its relatives for other families (the denoiser only): A is
    Gaussian and B zero, so that the training starts from the base, and the null adapter is the base.
    """
    alpha = recipe.alpha or recipe.rank
    component, targets = parts_in(pipeline).denoisers[0], LORA.targets(recipe, family_of(pipeline))
    views = views_of(pipeline, lessons)
    priors = priors_of(pipeline, lessons, recipe) if views else None
    encoder = PromptEncoder(pipeline)
    with low_rank(denoiser_of(pipeline), targets, recipe.rank, alpha, len(lessons), recipe.seed) as weights:
        if views:
            trained = list(weights.values())
            yield from fit(pipeline, trained, encoder.texts, views, priors, recipe, checkpoint)
    config = LoraConfig(r=recipe.rank, lora_alpha=alpha, init_lora_weights="gaussian").to_dict()
    # One metadata entry, so that equal weights give equal files: several, as diffusers' own writer leaves them, come in
    # another order in every process.
    settings = {f"{component}.{key}": value for key, value in (config | {"target_modules": sorted(targets)}).items()}
    metadata = {METADATA: json.dumps(settings, indent=2, sort_keys=True)}
    for k, lesson in enumerate(lessons):
        own = {f"{component}.{name}": weight[k] for name, weight in weights.items()}
        write_tensors(own, lesson.folder / LORA_FILE, metadata)
