"""A package adds a family of bases by one description and one entry point: it is checked, prepared and drawn with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from raymap.actors.generator import Generator
from raymap.actors.specs import GeneratorSpec
from raymap.adapters.brought import bring
from raymap.base.families.registry import FAMILIES, family_names, family_of, find_family
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.base.shapes import INDEX
from raymap.bench.models import random_base, random_lora, write_lora
from raymap.driver.cost import estimate
from raymap.driver.draw import plan_run
from raymap.driver.interventions import measured_variants
from raymap.driver.prepare import prepare
from raymap.errors import InputError
from raymap.store.folder import RunFolder
from raymap.study.adapter import BASE
from raymap.study.file import load_study
from tests.small_study import small_study

Call = Callable[..., tuple[int, str]]
JUDGES = {"clip": "embedded", "lpips": "embedded"}
MODULE = '''
"""A pipeline that diffusers does not have; its denoiser's middle is no stage, so it belongs to the rest."""

from dataclasses import replace

from diffusers import StableDiffusionPipeline

from raymap.base.families.stable_diffusion import STABLE_DIFFUSION


class PaintingPipeline(StableDiffusionPipeline):
    pass


PAINTING = replace(
    STABLE_DIFFUSION,
    title="Painting",
    pipeline="painting:PaintingPipeline",
    stages=("down_blocks", "up_blocks"),
)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return what installs the package, its family described under the given name."""

    def install(described: str) -> None:
        about = tmp_path / "site" / "painting-1.0.dist-info"
        about.mkdir(parents=True)
        (tmp_path / "site" / "painting.py").write_text(MODULE)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: painting\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[raymap.families]\nPaintingPipeline = painting:{described}\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        find_family.cache_clear()

    yield install
    find_family.cache_clear()


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base of that family, tiny and with random weights."""
    folder = tmp_path_factory.mktemp("painting")
    random_base("tiny").save_pretrained(folder)
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"_class_name": "PaintingPipeline"}))
    return folder


def test_a_study_on_a_base_of_an_added_family_is_prepared_planned_and_drawn(
    installed: Callable[[str], None], painting: Path, tmp_path: Path
) -> None:
    installed("PAINTING")
    assert family_names() == (*FAMILIES, "PaintingPipeline")
    pipeline = load(painting)
    assert type(pipeline).__name__ == "PaintingPipeline"
    assert family_of(pipeline).title == "Painting"
    write_lora(random_lora(pipeline.unet, seed=1), tmp_path / "lora")
    changes = {"subjects": None, "adapters": ["lora"], "identity_control": False}
    interventions = {"parts": ["stage"], "equal_norm": True}
    study = load_study(small_study(tmp_path, base=str(painting), **JUDGES, **changes, interventions=interventions))
    prepared = prepare(study)
    assert estimate(prepared).images == 7 * 2 * (2 + 4)
    folder = RunFolder(tmp_path / "run")
    for found in prepared.brought:
        bring(found, folder.adapter(found.info.name), prepared.base.sha256)
    stages = [variant.name for variant in measured_variants(prepared, folder) if variant.family == "stage"]
    assert stages == ["lora@stage=down_blocks", "lora@stage=rest", "lora@stage=up_blocks"]
    plan = plan_run(prepared, folder)
    generator = Generator(GeneratorSpec.of(study, prepared.base.pinned, plan, folder))
    block = plan.blocks[0]
    first, whole, one, again = (generator.draw(block, name)[0] for name in (BASE, "lora", stages[0], BASE))
    assert first.shape == (4, *prepared.size, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(whole, first)
    assert not np.array_equal(one, whole)


def test_check_looks_at_adapters_for_a_base_of_an_added_family(
    installed: Callable[[str], None], painting: Path, tmp_path: Path, call: Call
) -> None:
    installed("PAINTING")
    write_lora(random_lora(load(painting).unet, seed=1), tmp_path / "lora")
    assert call("check", tmp_path / "lora", "--base", painting) == (0, "")


def test_a_package_that_offers_something_else_is_named(installed: Callable[[str], None], painting: Path) -> None:
    installed("STABLE_DIFFUSION")
    with pytest.raises(InputError, match="family PaintingPipeline of the package painting: painting:STABLE_DIFFUSION"):
        Base.at(painting)


def test_a_base_of_an_unknown_family_is_refused_by_the_name_of_its_pipeline(
    painting: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "any.safetensors").touch()
    study = small_study(tmp_path, base=str(painting), **JUDGES)
    for command in (("check", tmp_path / "any.safetensors", "--base", painting), ("run", study, "--dry-run")):
        code, said = call(*command)
        assert code == 2
        assert f"base: {painting}: its pipeline is a PaintingPipeline" in said
        assert "StableDiffusionPipeline" in said


@pytest.mark.parametrize("index", ["{", "[]", "{}"])
def test_a_folder_that_names_no_pipeline_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(InputError, match=rf"base: {tmp_path}: its {INDEX} names no pipeline"):
        Base.at(tmp_path)
