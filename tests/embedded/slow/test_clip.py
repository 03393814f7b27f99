"""The training of the embedded CLIP ends with a folder that open_clip reads, and moves towards what it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from raymap.embedded.model import PIPELINE
from raymap.embedded.train import clip, drawn
from raymap.embedded.train.groups import Groups, joined
from raymap.embedded.world.description import describe
from raymap.scoring.clip import ClipScorer


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "BATCH", (4, 2))
    monkeypatch.setattr(clip, "RENDERED", 100)
    monkeypatch.setattr(clip, "DRAWN", 2)
    monkeypatch.setattr(clip, "UPDATES", 1)
    monkeypatch.setattr(drawn, "STEPS", 1)
    monkeypatch.setattr(drawn, "TUNING_STEPS", 1)


@pytest.mark.usefixtures("few")
def test_a_trained_clip_is_read_by_open_clip_and_scores_prompts_of_any_words(tmp_path: Path) -> None:
    trained = clip.train(2, [PIPELINE], tmp_path, torch.device("cpu"))
    scorer = ClipScorer(f"local-dir:{tmp_path}")
    for name, weight in trained.state_dict().items():
        assert torch.equal(scorer.model.state_dict()[name].float(), weight), name
    pixels = np.stack([describe("a red cat on grass").render(k) for k in range(2)])
    cosines = scorer.cosines(["a red cat on grass", "Grandmother in Kyoto – 京都"], scorer.image_features(pixels))
    assert np.isfinite(cosines).all()
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 9e6


def test_the_loss_within_groups_falls_while_training() -> None:
    own = [describe(c) for c in ("a red cat on grass", "a man in a blue shirt")]
    pixels = np.stack([np.stack([d.render(k) for k in range(3)] + [d.render(0, "none")] * 2) for d in own])
    captions = np.array([[d.caption] * 3 + ["", ""] for d in own])
    shown = np.array([[1, 1, 1, 0.1, 0.1]] * 2, dtype=np.float32)
    both = joined([Groups(pixels, captions, shown, np.full((2, 16, 16), 255, np.uint8))] * 2)
    index = {d.caption: k for k, d in enumerate(own)}
    tokens = torch.tensor([[901, 5, 902] + [902] * 29, [901, 6, 902] + [902] * 29]).repeat(2, 1, 1)
    torch.manual_seed(0)
    model = clip._model(903, clip.TRAINING_CONTEXT).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = clip.Images(both, index, torch.device("cpu"))
    values = []
    for _ in range(25):
        contrast, scaling = clip._losses(model, [images.batch(4), images.batch(2)], tokens)
        values.append(scaling.item())
        optimizer.zero_grad()
        (contrast + clip.SCALE_WEIGHT * scaling).backward()
        optimizer.step()
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:3])
