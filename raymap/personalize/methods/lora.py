"""Trains DreamBooth-LoRA."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig

from raymap.adapters.lora import LORA_FILE, METADATA
from raymap.base.pipeline import denoiser_of
from raymap.drawing.prompts import PromptEncoder
from raymap.personalize.layers import low_rank
from raymap.personalize.lessons import Lessons, priors_of, views_of, write_tensors
from raymap.personalize.step import Step
from raymap.personalize.training import fit
from raymap.study.methods.lora import LoraRecipe


def train(pipeline: DiffusionPipeline, lessons: Lessons, recipe: LoraRecipe, checkpoint: Path) -> Iterator[Step]:
    """Write `pytorch_lora_weights.safetensors`, with alpha in its metadata.

    Follows diffusers' `train_dreambooth_lora.py` (UNet only): A is Gaussian and B zero, so that the training starts
    from the base, and the null adapter is the base.
    """
    alpha = recipe.alpha or recipe.rank
    views = views_of(pipeline, lessons)
    priors = priors_of(pipeline, lessons, recipe) if views else None
    encoder = PromptEncoder(pipeline)

    def encode(captions: list[str]) -> torch.Tensor:
        embeddings: torch.Tensor = encoder.texts(captions)[0]
        return embeddings

    with low_rank(denoiser_of(pipeline), recipe.targets, recipe.rank, alpha, len(lessons), recipe.seed) as weights:
        if views:
            trained = list(weights.values())
            yield from fit(pipeline, trained, encode, views, priors, recipe, checkpoint)
    config = LoraConfig(r=recipe.rank, lora_alpha=alpha, init_lora_weights="gaussian").to_dict()
    # One metadata entry, so that equal weights give equal files: several, as diffusers' own writer leaves them, come in
    # another order in every process.
    settings = {f"unet.{key}": value for key, value in config.items()} | {"unet.target_modules": sorted(recipe.targets)}
    metadata = {METADATA: json.dumps(settings, indent=2, sort_keys=True)}
    for k, lesson in enumerate(lessons):
        own = {f"unet.{name}": weight[k] for name, weight in weights.items()}
        write_tensors(own, lesson.folder / LORA_FILE, metadata)
