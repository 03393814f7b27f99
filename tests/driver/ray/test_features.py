"""A run keeps the features of its images, and its statistics hold the distances between them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from raymap.analysis.read import read_features, read_scores
from raymap.scoring.clip import ClipScorer


def test_a_run_keeps_the_features_that_its_cosines_come_from(finished: Path) -> None:
    features = read_features(finished)
    assert features is not None
    scores = read_scores(finished)
    assert features.height == 3 * 7 * 2
    prompts = {p["id"]: p["text"] for p in yaml.safe_load((finished / "study.yaml").read_text())["prompts"]}
    clip = ClipScorer("embedded")
    both = scores.join(features, on=["adapter", "prompt_id", "seed"])
    assert both.height == scores.height
    for row in both.iter_rows(named=True):
        text = clip.text_features([prompts[row["prompt_id"]]])[0].numpy()
        assert float(text @ np.array(row["feature"])) == pytest.approx(row["clip_adapted"], abs=1e-6)


def test_distances_of_a_run_say_what_they_are_of(finished: Path) -> None:
    rows = json.loads((finished / "statistics.json").read_text())["distances"]
    assert {row["features"] for row in rows} == {"clip:embedded"}
    assert {row["metric"] for row in rows} == {"fid", "kid", "cmmd"}
    assert all(row["value"] is not None or row["reason"] for row in rows)
    control = [row["value"] for row in rows if row["adapter"] == "identity-lora" and row["design"] == "seed-matched"]
    assert {value for value in control if value is not None} == {0.0}
