"""The personalization methods: a pipeline and lessons go in, adapter files come out; the base stays as it was.

Each trains any number of subjects together, in one batch over the shared frozen base.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from safetensors.torch import save_file

from raymap.adapters.custom_diffusion import CUSTOM_DIFFUSION_FILE, key_of
from raymap.adapters.inversion import INVERSION_FILE, ROWS_FILE, ROWS_KEY
from raymap.adapters.lora import LORA_FILE, METADATA
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.personalize.layers import keys_and_values, low_rank
from raymap.personalize.orders import AdapterOrder
from raymap.personalize.step import Step
from raymap.personalize.tokens import LearnedTokens
from raymap.personalize.training import fit
from raymap.personalize.views import Views, encode, flipped, rescaled
from raymap.study.model import SamplerSettings
from raymap.study.recipes import CustomDiffusionRecipe, InversionRecipe, LoraRecipe, Recipe

CLASS_BATCH = 8


@dataclass(frozen=True)
class Lesson:
    """What one subject brings to a training.

    `images` are the references, uint8 (N, H, W, 3) of the base's size; None asks for the method's null adapter, which
    is a lesson of its own. `captions` hold the trigger; each reference is shown under any of them. `class_prompt` is
    that of the pictures that the base draws for prior preservation. `initializer` is the word a learned token starts
    from. The adapter's files are written into `folder`.
    """

    images: np.ndarray | None
    trigger: str
    captions: tuple[str, ...]
    class_prompt: str
    initializer: str
    folder: Path


Lessons = tuple[Lesson, ...]


def lesson_of(order: AdapterOrder, images: np.ndarray | None, folder: Path) -> Lesson:
    """Return what an order brings to a training; `images` are the references as the base's size has them."""
    trigger = getattr(order.recipe, "trigger", "") if order.trained_by == "custom_diffusion" else order.phrase
    inverts = order.trained_by == "textual_inversion"
    captions = tuple(template.replace("{}", trigger) for template in order.templates) if inverts else (order.caption,)
    return Lesson(images, trigger, captions, order.class_prompt, order.initializer, folder)


def train(pipeline: StableDiffusionPipeline, lessons: Lessons, recipe: Recipe, checkpoint: Path) -> Iterator[Step]:
    """Train lessons of one method by its recipe, into their folders (cards are not written yet)."""
    if isinstance(recipe, InversionRecipe):
        yield from train_inversion(pipeline, lessons, recipe, checkpoint)
    elif isinstance(recipe, CustomDiffusionRecipe):
        yield from train_custom_diffusion(pipeline, lessons, recipe, checkpoint)
    elif isinstance(recipe, LoraRecipe):
        yield from train_lora(pipeline, lessons, recipe, checkpoint)


def train_lora(
    pipeline: StableDiffusionPipeline, lessons: Lessons, recipe: LoraRecipe, checkpoint: Path
) -> Iterator[Step]:
    """Train DreamBooth-LoRA and write `pytorch_lora_weights.safetensors`, alpha in its metadata.

    Follows diffusers' `train_dreambooth_lora.py` (UNet only): A gaussian, B zero, so that it sets out from the base,
    and stays there in the null adapter.
    """
    alpha = recipe.alpha or recipe.rank
    views = _views(pipeline, lessons)
    priors = _priors(pipeline, lessons, recipe) if views else None
    with low_rank(pipeline.unet, recipe.targets, recipe.rank, alpha, len(lessons), recipe.seed) as weights:
        if views:
            trained = list(weights.values())
            yield from fit(pipeline, trained, PromptEncoder(pipeline), views, priors, recipe, checkpoint)
    config = LoraConfig(r=recipe.rank, lora_alpha=alpha, init_lora_weights="gaussian").to_dict()
    # Equal weights give equal files: a single metadata entry has one order (several, as diffusers' own writer leaves
    # them, are shuffled anew in every process).
    held = {f"unet.{key}": value for key, value in config.items()} | {"unet.target_modules": sorted(recipe.targets)}
    metadata = {METADATA: json.dumps(held, indent=2, sort_keys=True)}
    for k, lesson in enumerate(lessons):
        _write({f"unet.{name}": weight[k] for name, weight in weights.items()}, lesson.folder / LORA_FILE, metadata)


def train_inversion(
    pipeline: StableDiffusionPipeline, lessons: Lessons, recipe: InversionRecipe, checkpoint: Path
) -> Iterator[Step]:
    """Train Textual Inversion and write `learned_embeds.safetensors`; the null adapter's rows are random.

    Follows diffusers' `textual_inversion.py`: only the trigger's rows move. With `restore_rows` false the whole token
    embedding is written too, shrunk as AdamW's weight decay would have shrunk rows without a gradient: by
    (1 − learning rate · weight decay) at every step.
    """
    tokens = _tokens(pipeline, lessons, recipe.vectors)
    views = _views(pipeline, lessons, mirrored=recipe.flip)
    if views:
        yield from fit(pipeline, [tokens.vectors], tokens.encode, views, None, recipe, checkpoint)
    else:
        _randomize(tokens, recipe)
    for token, lesson in zip(tokens.tokens, lessons, strict=True):
        _write({token.trigger: token.vectors}, lesson.folder / INVERSION_FILE)
    if views and not recipe.restore_rows:
        rows = pipeline.text_encoder.get_input_embeddings().weight[: len(pipeline.tokenizer)].detach().cpu().clone()
        for _ in range(recipe.steps):
            rows.mul_(1 - recipe.learning_rate * recipe.weight_decay)
        for lesson in lessons:
            _write({ROWS_KEY: rows}, lesson.folder / ROWS_FILE)


def train_custom_diffusion(
    pipeline: StableDiffusionPipeline, lessons: Lessons, recipe: CustomDiffusionRecipe, checkpoint: Path
) -> Iterator[Step]:
    """Train Custom Diffusion and write `pytorch_custom_diffusion_weights.safetensors` and `<trigger>.safetensors`.

    Follows diffusers' `train_custom_diffusion.py`: keys and values of cross-attention and the modifier token's row are
    trained. The null adapter's are copies, and a random row.
    """
    tokens = _tokens(pipeline, lessons, 1)
    views = _views(pipeline, lessons, rescaling=recipe.seed if recipe.augment else None)
    priors = _priors(pipeline, lessons, recipe) if views else None
    with keys_and_values(pipeline.unet, len(lessons)) as weights:
        if views:
            trained = [*weights.values(), tokens.vectors]
            yield from fit(pipeline, trained, tokens.encode, views, priors, recipe, checkpoint)
        else:
            _randomize(tokens, recipe)
    for k, (token, lesson) in enumerate(zip(tokens.tokens, lessons, strict=True)):
        own = {key_of(name): weight[k] for name, weight in weights.items()}
        _write(own, lesson.folder / CUSTOM_DIFFUSION_FILE)
        _write({token.trigger: token.vectors[0]}, lesson.folder / f"{token.trigger}.safetensors")


def _tokens(pipeline: StableDiffusionPipeline, lessons: Lessons, vectors: int) -> LearnedTokens:
    return LearnedTokens(pipeline, [x.trigger for x in lessons], vectors, [x.initializer for x in lessons])


def _views(
    pipeline: StableDiffusionPipeline, lessons: Lessons, mirrored: bool = False, rescaling: int | None = None
) -> list[Views]:
    """Return each lesson's views, with mirror images or rescaled from the given seed; none for the null adapter."""
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


def _priors(pipeline: StableDiffusionPipeline, lessons: Lessons, recipe: Recipe) -> list[Views] | None:
    """Return pictures of each lesson's class, drawn by the base from seeds 0, 1, …, where the recipe wants a prior."""
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


@torch.no_grad()
def _randomize(tokens: LearnedTokens, recipe: Recipe) -> None:
    random = torch.Generator("cpu").manual_seed(recipe.seed)
    noise = torch.randn(tokens.vectors.shape, generator=random)
    tokens.vectors.copy_(noise * tokens.vectors.std().cpu())


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, metadata=metadata)
