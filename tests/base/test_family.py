"""A family of bases is added by one description: this file adds one, and everything works with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from raymap.actors.generator import Generator
from raymap.actors.specs import GeneratorSpec
from raymap.adapters.brought import bring
from raymap.base.families.registry import FAMILIES, family_of
from raymap.base.families.stable_diffusion import STABLE_DIFFUSION
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.base.shapes import INDEX
from raymap.bench.models import random_base, random_lora, write_lora
from raymap.driver.cost import estimate
from raymap.driver.draw import plan_run
from raymap.driver.interventions import measured_variants
from raymap.driver.prepare import prepare
from raymap.errors import InputError
from raymap.plan.blocks import BASE
from raymap.store.folder import RunFolder
from raymap.study.file import load_study
from tests.conftest import small_study

JUDGES = {"clip": "embedded", "lpips": "embedded"}


class PaintingPipeline(StableDiffusionPipeline):
    """A pipeline that diffusers does not have."""


PAINTING = replace(
    STABLE_DIFFUSION,
    title="a family of this test",
    pipeline=f"{__name__}:{PaintingPipeline.__name__}",
    stages=("down_blocks", "up_blocks"),  # the middle is no stage of its own, so that its weights belong to the rest
)


@pytest.fixture
def painting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a base of the new family, tiny and with random weights."""
    monkeypatch.setitem(FAMILIES, PAINTING.class_name, PAINTING)
    folder = tmp_path / "painting"
    random_base("tiny").save_pretrained(folder)
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"_class_name": PAINTING.class_name}))
    return folder


def test_a_study_on_a_base_of_a_new_family_is_prepared_planned_and_drawn(painting: Path, tmp_path: Path) -> None:
    write_lora(random_lora(load(painting).unet, seed=1), tmp_path / "lora")
    study = load_study(
        small_study(
            tmp_path,
            base=str(painting),
            **JUDGES,
            subjects=None,
            adapters=["lora"],
            identity_control=False,
            interventions={"parts": ["stage"], "equal_norm": True},
        )
    )
    prepared = prepare(study)
    assert prepared.base.family is PAINTING
    assert estimate(prepared).images == 7 * 2 * (2 + 4)
    folder = RunFolder(tmp_path / "run")
    for found in prepared.brought:
        bring(found, folder.adapter(found.info.name), prepared.base.sha256)
    names = [variant.name for variant in measured_variants(prepared, folder)]
    assert names[:3] == ["lora@stage=down_blocks", "lora@stage=rest", "lora@stage=up_blocks"]
    plan = plan_run(prepared, folder)
    generator = Generator(GeneratorSpec.of(study, prepared.base.pinned, plan, folder))
    assert isinstance(generator.pipeline, PaintingPipeline)
    drawn = {name: generator.draw(plan.blocks[0], name)[0] for name in (BASE, "lora", names[0], BASE)}
    side = prepared.base.side
    assert drawn[BASE].shape == (4, side, side, 3)
    assert not np.array_equal(drawn["lora"], drawn[BASE])
    assert not np.array_equal(drawn[names[0]], drawn["lora"])
    assert np.array_equal(generator.draw(plan.blocks[0], BASE)[0], drawn[BASE])


def test_check_looks_at_adapters_for_a_base_of_a_new_family(
    painting: Path, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    pipeline = load(painting)
    assert family_of(pipeline) is PAINTING
    write_lora(random_lora(pipeline.unet, seed=1), tmp_path / "lora")
    assert call("check", tmp_path / "lora", "--base", painting) == (0, "")


def test_a_base_of_an_unknown_family_is_refused_by_the_name_of_its_pipeline(
    painting: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    monkeypatch.delitem(FAMILIES, PAINTING.class_name)
    (tmp_path / "any.safetensors").touch()
    code, said = call("check", tmp_path / "any.safetensors", "--base", painting)
    assert code == 2
    assert f"base: {painting}: its pipeline is a PaintingPipeline" in said
    assert "StableDiffusionPipeline" in said
    code, said = call("run", small_study(tmp_path, base=str(painting), **JUDGES), "--dry-run")
    assert code == 2
    assert "its pipeline is a PaintingPipeline" in said


@pytest.mark.parametrize("index", ["{", "[]", "{}"])
def test_a_folder_that_names_no_pipeline_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(InputError, match=rf"base: {tmp_path}: its {INDEX} names no pipeline"):
        Base.at(tmp_path)
