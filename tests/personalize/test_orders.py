"""What a study orders keeps its digests, so that adapters trained by earlier versions are found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raymap.personalize.orders import orders
from raymap.study.file import build_study
from raymap.study.methods.registry import METHODS

SUBJECTS = """
- {name: cup, category: object, class_word: red tea cup, references: [1.jpg, 2.jpg]}
- {name: ink, category: style, class_word: painting, references: [3.jpg], instance_prompt: "a work like {}"}
"""
REFERENCES = {"cup": {"1.jpg": "1" * 64, "2.jpg": "2" * 64}, "ink": {"3.jpg": "3" * 64}}
OWN = """
lora: {rank: 8, alpha: 2.0, targets: [to_q, attn2.to_v], prior_weight: 0.5, trigger: zwx}
textual_inversion: {preset: embedded-textual_inversion, templates: ["{} here"], restore_rows: false, initializer: cup}
custom_diffusion: {augment: false, trigger: <new2>, initializer: dog, prior_weight: null}
"""
RECIPES: dict[str, dict[str, Any]] = {
    "reference": {name: f"reference-{name}" for name in METHODS},
    "embedded": {name: f"embedded-{name}" for name in METHODS},
    "own": yaml.safe_load(OWN),
}
DIGESTS = {
    "reference": {
        "cup-textual_inversion": "7930a422a1418be5",
        "cup-lora": "d8288e6f3de34a86",
        "cup-custom_diffusion": "1cb4237284053c70",
        "ink-textual_inversion": "f0f0b1e529e8dc39",
        "ink-lora": "d077faa68f4362ca",
        "ink-custom_diffusion": "c8310047a5be9dad",
        "identity-textual_inversion": "e5e4e1874a54131d",
        "identity-lora": "ed92d37c1742980b",
        "identity-custom_diffusion": "30268344c54e95f2",
    },
    "embedded": {
        "cup-textual_inversion": "25e65d24ace30116",
        "cup-lora": "d370a6c6d7e0a1ec",
        "cup-custom_diffusion": "267d1d83f3469345",
        "ink-textual_inversion": "ddb8eb3fd6179a9c",
        "ink-lora": "07b7c1aa73c52e14",
        "ink-custom_diffusion": "d948cf5514d934a0",
        "identity-textual_inversion": "0f1e84ca0de3a1a7",
        "identity-lora": "07f5cd0b8d8cac01",
        "identity-custom_diffusion": "a8387d5d98228d01",
    },
    "own": {
        "cup-textual_inversion": "f6bff7a418a8dfa8",
        "cup-lora": "00c2e2347f643a42",
        "cup-custom_diffusion": "1f153aa5c503b3fa",
        "ink-textual_inversion": "e4ad53144cf2d2b7",
        "ink-lora": "5e0e431ed11f11cf",
        "ink-custom_diffusion": "bb552dc86755873f",
        "identity-textual_inversion": "c00a29a91b6a05ec",
        "identity-lora": "f32cf60972736c2d",
        "identity-custom_diffusion": "3803bc882b04710a",
    },
}
"""The first 16 digits of each order's digest, as raymap computed them when methods were not yet described apart."""


@pytest.mark.parametrize("recipes", RECIPES)
def test_the_digests_of_orders_are_those_of_earlier_versions(recipes: str) -> None:
    raw = {"name": "s", "seeds": 2, "prompts": {"scenes": ["a city at night"]}, "methods": RECIPES[recipes]}
    study = build_study(raw | {"subjects": yaml.safe_load(SUBJECTS)}, "test", Path())
    wanted = orders(study, "b" * 64, REFERENCES)
    assert {order.name: order.digest[:16] for order in wanted} == DIGESTS[recipes]
