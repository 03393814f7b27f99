"""The embedded base is an ordinary pipeline of ordinary parts, small, and draws what captions say."""

from __future__ import annotations

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel

from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE, WEIGHTS
from raymap.embedded.train.data import motifs
from raymap.scoring.clip import ClipScorer
from raymap.study.model import SamplerSettings

LIMIT = 48 * 2**20


def test_a_plain_from_pretrained_loads_and_draws() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(PIPELINE, local_files_only=True)
    assert isinstance(pipeline.unet, UNet2DConditionModel)
    assert isinstance(pipeline.vae, AutoencoderKL)
    assert isinstance(pipeline.text_encoder, CLIPTextModel)
    assert {m.dtype for m in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red car", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (64, 64)


def test_the_tokenizer_is_the_standard_one() -> None:
    tokenizer = load(PIPELINE).tokenizer
    for text in ("a photo of sks cup", "Time frozen in mid-motion, 2 KOALAS!", "café crème", ""):
        ours = tokenizer(text, padding="max_length", truncation=True).input_ids
        theirs = open_clip.tokenize([text])[0].tolist()
        length = theirs.index(49407) + 1
        assert ours[:length] == theirs[:length]
        assert set(ours[length:]) <= {49407}


def test_the_weights_are_small_finite_and_safetensors_only() -> None:
    files = [p for p in WEIGHTS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < LIMIT
    assert {p.suffix for p in files} <= {".safetensors", ".json"}
    for path in (p for p in files if p.suffix == ".safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                assert torch.isfinite(file.get_tensor(key).float()).all(), (path.name, key)


def test_held_out_captions_are_drawn_so_that_clip_tells_them_apart() -> None:
    torch.set_num_threads(1)
    captions = sorted({p.caption for p in motifs(None, 40, seed=77, held_out=True)})[:32]
    pipeline = load(PIPELINE)
    sampler = SamplerSettings(steps=12)
    pixels = draw(pipeline, PromptEncoder(pipeline), captions, tuple(range(32)), sampler, 32)
    clip = ClipScorer("embedded")
    cosines = (clip.image_features(pixels) @ clip.text_features(captions).T).numpy()
    rng = np.random.default_rng(0)
    hits = [
        cosines[k, k] > cosines[k, rng.choice([j for j in range(32) if j != k], 9, replace=False)].max()
        for k in range(32)
    ]
    assert np.mean(hits) >= 0.7
