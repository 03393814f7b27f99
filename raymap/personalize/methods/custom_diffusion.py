"""Trains Custom Diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusers import DiffusionPipeline

from raymap.adapters.custom_diffusion import CUSTOM_DIFFUSION_FILE, key_of
from raymap.base.families.registry import family_of
from raymap.base.pipeline import denoiser_of
from raymap.personalize.layers import full_rank
from raymap.personalize.lessons import Lessons, priors_of, views_of, write_tensors
from raymap.personalize.objectives.objective import objective_of
from raymap.personalize.step import Step
from raymap.personalize.tokens import LearnedTokens
from raymap.personalize.training import fit
from raymap.study.methods.custom_diffusion import CUSTOM_DIFFUSION, CustomDiffusionRecipe


def train(
    pipeline: DiffusionPipeline, lessons: Lessons, recipe: CustomDiffusionRecipe, checkpoint: Path
) -> Iterator[Step]:
    """Write `pytorch_custom_diffusion_weights.safetensors` and `<trigger>.safetensors`.

    Follows diffusers' `train_custom_diffusion.py`: keys and values of cross-attention, or of a joint attention's text
    stream, and the modifier token's embedding are trained, and the first token's keys and values pass no gradient on.
    The null adapter's weights are
    copies of the base's, its embedding is random.
    """
    tokens = LearnedTokens.of(pipeline, lessons, 1)
    views = views_of(pipeline, lessons, rescaling=recipe.seed if recipe.augment else None)
    priors = priors_of(pipeline, lessons, recipe) if views else None
    targets = CUSTOM_DIFFUSION.targets(recipe, family_of(pipeline))
    opening = objective_of(pipeline).opening
    with full_rank(denoiser_of(pipeline), targets, len(lessons), without_gradient=opening) as weights:
        if views:
            trained = [*weights.values(), *tokens.weights]
            yield from fit(pipeline, trained, tokens.encoded, views, priors, recipe, checkpoint)
        else:
            tokens.randomize(recipe.seed)
    for k, lesson in enumerate(lessons):
        own = {key_of(name): weight[k] for name, weight in weights.items()}
        write_tensors(own, lesson.folder / CUSTOM_DIFFUSION_FILE)
    tokens.write([lesson.folder for lesson in lessons], squeeze=True)
