"""The embedded base is an ordinary pipeline of ordinary parts, small, and draws what captions say."""

from __future__ import annotations

import open_clip
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel

from raymap.base.pipeline import load
from raymap.embedded.model import PIPELINE, WEIGHTS

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
