"""Personalization teaches the subject: with the trigger in the prompt, the adapted model draws it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from raymap.adapters.lora import LORA_FILE
from raymap.adapters.read import read_adapter
from raymap.adapters.skeleton import skeleton_of
from raymap.adapters.store import AdapterStore
from raymap.demo import EMBEDDED_LORA
from raymap.diffusion.base import load
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.embedded.subjects import STAR_CUP
from raymap.personalize.lora import add_lora, save_lora, train_lora
from raymap.personalize.references import read_reference
from raymap.scoring.clip import ClipScorer
from raymap.study import LoraRecipe, SamplerSettings


def test_the_triggered_prompt_draws_the_subject(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    recipe = LoraRecipe.model_validate(EMBEDDED_LORA)
    references = np.stack([read_reference(p, 64) for p in STAR_CUP.write_references(tmp_path, n=5)])
    rng = np.random.default_rng(99)
    unseen = np.stack([STAR_CUP.render(rng) for _ in range(8)])
    prompt = f"a photo of {recipe.trigger} {STAR_CUP.class_word}"
    pipeline = load(PIPELINE)
    add_lora(pipeline, recipe)
    for _ in train_lora(pipeline, references, prompt, recipe):
        pass
    save_lora(pipeline, tmp_path)
    store = AdapterStore(pipeline)
    store.add("cup", read_adapter(tmp_path / LORA_FILE, skeleton_of(PIPELINE)).adapter)
    clip, encoder = ClipScorer("embedded"), PromptEncoder(pipeline, store)
    similarity = {}
    for name in (None, "cup"):
        store.swap(name)
        pixels = draw(pipeline, encoder, [prompt] * 8, tuple(range(8)), SamplerSettings(steps=12), 8)
        similarity[name] = (clip.image_features(pixels) @ clip.image_features(unseen).T).mean(1)
    gain = similarity["cup"] - similarity[None]
    assert gain.mean() > 0.1
    assert (gain > 0).float().mean() >= 0.75
