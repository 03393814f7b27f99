"""The embedded base is an ordinary pipeline of ordinary parts, small, and draws what captions say."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTokenizer

from raymap.base.embedded import embedded_folder
from raymap.embedded.model import PIPELINE, PIPELINES, WEIGHTS
from raymap.study.suite import read_suite

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


@pytest.mark.parametrize("base", PIPELINES)
def test_its_tokenizer_reads_the_prompts_of_its_suites_as_clip_s_does_and_other_words_in_parts(base: str) -> None:
    ours, theirs = (
        CLIPTokenizer.from_pretrained(embedded_folder(base) / "tokenizer"),
        open_clip.get_tokenizer("ViT-B-32"),
    )
    names = {number: token for token, number in theirs.encoder.items()}
    suites = ("embedded", "embedded-quick", "embedded-paper", "embedded-factorial")
    prompts = [prompt.text for name in suites for prompt in read_suite(name, "suite", Path())]
    for text in (*prompts, "a photo of sks cup", "a teapot in front of a backpack"):
        ids = ours(text, add_special_tokens=False).input_ids
        assert ours.convert_ids_to_tokens(ids) == [names[number] for number in theirs.encode(text)]
    odd = "Time frozen in mid-motion, 2 KOALAS! Füße, 東京"
    ids = ours(odd, add_special_tokens=False).input_ids
    assert ours.unk_token_id not in ids
    assert ours.decode(ids).replace(" ", "") == odd.lower().replace(" ", "")


def test_the_weights_are_small_finite_and_safetensors_only() -> None:
    files = [p for p in WEIGHTS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < LIMIT
    assert {p.suffix for p in files} <= {".safetensors", ".json"}
    for path in (p for p in files if p.suffix == ".safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                assert torch.isfinite(file.get_tensor(key).float()).all(), (path.name, key)
