"""A study's `speed` decides what run it is, only where it is not the usual."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from raymap.errors import InputError
from raymap.plan.blocks import make_plan
from raymap.study.adapter import AdapterInfo
from raymap.study.file import load_study
from raymap.study.model import Study
from tests.small_study import small_study


def test_a_digest_knows_of_speed_only_where_it_is_not_the_usual(tmp_path: Path) -> None:
    """Runs from before there was a `speed` can be resumed: a plain study's digest covers what it always covered."""
    path = small_study(tmp_path)
    adapter = AdapterInfo("a", "lora", "s", "object", "0" * 64)

    def digest_of(study: Study) -> str:
        return make_plan(study, (adapter,), {"base": "b"}).digest

    study = load_study(path)
    decides = {
        "models": {"base": "b"}, "clip": "embedded", "lpips": "embedded",
        "sampler": {"steps": 3, "guidance_scale": 3.0}, "seeds": [0, 1],
        "prompts": [[p.id, p.text, p.category] for p in study.prompts],
        "adapters": [{"name": "a", "method": "lora", "subject": "s", "subject_category": "object", "sha256": "0" * 64}],
        "batch_size": 4, "dtype": "float32", "protocol": "plain", "draw_anyway": False, "threads": 1,
    }  # fmt: skip
    usual = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    assert digest_of(study) == digest_of(load_study(path, ("speed.compile=none",))) == usual
    others = ("channels_last=true", "compile=default", "compile=max-autotune", "compile=reduce-overhead")
    digests = {digest_of(load_study(path, (f"speed.{pair}",))) for pair in others}
    assert len(digests | {usual}) == 5


def test_an_unknown_mode_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"speed\.compile"):
        load_study(small_study(tmp_path), ("speed.compile=fastest",))
