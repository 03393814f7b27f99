"""The embedded base draws what captions say."""

from __future__ import annotations

import numpy as np
import torch

from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.embedded.train.data import motifs
from raymap.scoring.clip import ClipScorer
from raymap.study.model import SamplerSettings


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
