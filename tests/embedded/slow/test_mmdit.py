"""The second denoiser trains, and is saved as a pipeline that raymap draws with as with any Stable Diffusion 3."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from raymap.base.clip_tokenizer import clip_tokenizer
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.embedded.train import mmdit
from raymap.embedded.train.data import motifs
from raymap.embedded.train.vocabulary import world_tokenizer
from raymap.study.model import SamplerSettings


def test_its_tokenizer_reads_captions_as_clip_s_does_with_a_fraction_of_the_entries() -> None:
    captions = [motif.caption for motif in motifs(None, 2_000, seed=1, held_out=None)]
    small, full = world_tokenizer(captions[:1_000], mmdit.TOKENS), clip_tokenizer()
    assert len(small) < 3_000 < len(full)
    for caption in captions[:1_000]:
        ids = small(caption).input_ids
        assert small.convert_ids_to_tokens(ids) == full.convert_ids_to_tokens(full(caption).input_ids)
        assert len(ids) <= mmdit.TOKENS
    assert small.unk_token_id not in small("Füße, 東京", add_special_tokens=False).input_ids


def test_equal_trainings_give_equal_weights_and_a_pipeline_that_draws(tmp_path: Path) -> None:
    latents = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    captions = np.array(["a red cup on a table", "blue stripes"] * 32)
    folders = [tmp_path / name / "pipeline-dit" for name in ("one", "other")]
    for folder in folders:
        shutil.copytree(PIPELINE / "vae", folder.parent / "pipeline" / "vae")
        mmdit.train(latents, captions, 2, folder, folder.with_suffix(".pt"), torch.device("cpu"))
    weights = [(folder / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    shutil.copytree(PIPELINE / "vae", folders[0] / "vae")
    for name in ("tokenizer", "tokenizer_2"):
        world_tokenizer(captions, mmdit.TOKENS).save_pretrained(folders[0] / name)
    base, pipeline = Base.at(folders[0]), load(folders[0])
    assert base.size == (64, 64)
    assert base.skeleton.text_length == mmdit.TOKENS
    sampler = base.sampler(SamplerSettings(steps=2))
    pixels = draw(pipeline, PromptEncoder(pipeline), ["a red cup", "blue stripes"], (0, 1), sampler, 2)
    assert pixels.shape == (2, 64, 64, 3)
