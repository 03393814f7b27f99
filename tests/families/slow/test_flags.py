"""A flag in model_index.json changes how a base is described: a distilled one is not guided."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raymap.base.families.registry import family_at, family_of
from raymap.base.pipeline import load, usual_sampler
from tests.pipelines import save_tiny


@pytest.mark.parametrize(("distilled", "passes", "steps"), [(False, 2, 50), (True, 1, 4)])
def test_a_distilled_klein_draws_four_steps_of_one_pass(
    distilled: bool, passes: int, steps: int, tmp_path: Path
) -> None:
    save_tiny("flux_2_klein", tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"is_distilled": distilled}))
    pipeline = load(tmp_path)
    for family in (family_at(tmp_path), family_of(pipeline)):
        assert (family.passes(4.0), family.steps) == (passes, steps)
    assert usual_sampler(pipeline).steps == steps
