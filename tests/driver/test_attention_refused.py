"""`raymap attention` says before anything starts that a base's attention cannot be measured, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raymap.base.families.registry import FAMILIES, family_at
from raymap.base.model import Base
from raymap.driver.attention import check_attention
from raymap.driver.prepare import prepare
from raymap.errors import InputError
from raymap.study.file import load_study
from tests.pipelines import save_tiny
from tests.small_study import small_study

Call = Callable[..., tuple[int, str]]
JUDGES = {"clip": "embedded", "lpips": "embedded"}


@pytest.mark.parametrize("name", [family.class_name for family in FAMILIES.values() if not family.text_keys])
def test_a_family_whose_text_has_no_keys_of_its_own_is_refused(tmp_path: Path, name: str) -> None:
    prepared = prepare(load_study(small_study(tmp_path, **JUDGES)))
    check_attention(prepared)
    base = replace(prepared.base, family=FAMILIES[name])
    with pytest.raises(InputError, match=rf"^base: .*{FAMILIES[name].title} keeps text and image in one stream"):
        check_attention(replace(prepared, base=base))


def test_a_pipeline_that_no_family_describes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyV22Pipeline"}')
    prepared = prepare(load_study(small_study(tmp_path, **JUDGES)))
    (tmp_path / "model_index.json").write_text('{"_class_name": "PRXPipeline"}')
    family = family_at(tmp_path)
    assert not family.known
    with pytest.raises(InputError, match="raymap does not know where a PRXPipeline attends to a prompt"):
        check_attention(replace(prepared, base=replace(prepared.base, family=family)))


def test_the_command_ends_with_2(tmp_path: Path, call: Call) -> None:
    base = save_tiny("z_image", tmp_path / "base")
    (tmp_path / "any.safetensors").touch()
    study = small_study(tmp_path, base=str(base), **JUDGES)
    code, said = call("attention", study, "--output", tmp_path / "run")
    assert code == 2
    assert "Z-Image" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "heads"), [("sana", 2), ("z_image", 2), ("qwen_image", 3), ("stable_diffusion", 2)])
def test_the_fewest_heads_of_a_layer_are_read_from_the_configuration(tmp_path: Path, name: str, heads: int) -> None:
    assert Base.at(save_tiny(name, tmp_path)).heads == heads
