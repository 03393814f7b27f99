"""Trains Textual Inversion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusers import DiffusionPipeline

from raymap.adapters.textual_inversion import ROWS_FILE, ROWS_KEY
from raymap.personalize.lessons import Lessons, views_of, write_tensors
from raymap.personalize.step import Step
from raymap.personalize.tokens import LearnedTokens
from raymap.personalize.training import fit
from raymap.study.methods.textual_inversion import InversionRecipe


def train(pipeline: DiffusionPipeline, lessons: Lessons, recipe: InversionRecipe, checkpoint: Path) -> Iterator[Step]:
    """Write `learned_embeds.safetensors`, or `<trigger>.safetensors` with vectors for each of several text encoders.

    Follows diffusers' `textual_inversion.py` and `textual_inversion_sdxl.py`: only the trigger's embeddings are
    trained, those of all text encoders together. The null adapter's vectors are random. With `restore_rows` false the
    whole token embedding is written too, shrunk as AdamW's weight decay would have shrunk rows without a gradient: by
    (1 − learning rate · weight decay) at every step.
    """
    tokens = LearnedTokens.of(pipeline, lessons, recipe.vectors)
    views = views_of(pipeline, lessons, mirrored=recipe.flip)
    if views:
        yield from fit(pipeline, tokens.weights, tokens.encoded, views, None, recipe, checkpoint)
    else:
        tokens.randomize(recipe.seed)
    tokens.write([lesson.folder for lesson in lessons])
    if views and not recipe.restore_rows:
        rows = pipeline.text_encoder.get_input_embeddings().weight[: len(pipeline.tokenizer)].detach().cpu().clone()
        for _ in range(recipe.steps):
            rows.mul_(1 - recipe.learning_rate * recipe.weight_decay)
        for lesson in lessons:
            write_tensors({ROWS_KEY: rows}, lesson.folder / ROWS_FILE)
