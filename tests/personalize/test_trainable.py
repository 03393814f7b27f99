"""Which bases can be trained by which method: what cannot is refused by name before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raymap.base.families.flux import FLUX
from raymap.base.families.registry import FAMILIES
from raymap.base.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from raymap.base.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from raymap.base.model import Base
from raymap.base.skeleton import Skeleton
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.personalize.orders import AdapterOrder
from raymap.study.methods.custom_diffusion import CUSTOM_DIFFUSION, CustomDiffusionRecipe
from raymap.study.methods.lora import LORA, LoraRecipe
from raymap.study.methods.registry import METHODS
from raymap.study.methods.textual_inversion import InversionRecipe
from raymap.study.subject import Subject
from tests.pipelines import save_tiny
from tests.small_study import small_study

Call = Callable[..., tuple[int, str]]
SUBJECT = Subject(name="cup", category="object", class_word="cup", references=(Path("1.jpg"),))


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("chroma", tmp_path_factory.mktemp("bases") / "chroma")


@pytest.mark.parametrize("method", METHODS)
def test_a_study_that_trains_what_cannot_be_trained_ends_with_exit_code_2(
    method: str, chroma: Path, tmp_path: Path, call: Call
) -> None:
    study = small_study(tmp_path, base=str(chroma), methods={method: {"steps": 2}}, clip="embedded", lpips="embedded")
    code, printed = call("run", study, "--output", tmp_path / "run")
    assert code == 2
    assert f"methods.{method}" in printed
    assert "cannot train Chroma" in printed
    assert "FLUX.1" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()


def test_the_null_adapter_of_a_base_that_cannot_be_trained_is_no_training(chroma: Path) -> None:
    AdapterOrder("identity-lora", "lora", LoraRecipe(), "0" * 64).check(Base.at(chroma).skeleton)


def test_the_families_that_can_be_trained_are_those_of_the_documentation() -> None:
    trained = {family.title for family in FAMILIES.values() if family.trainable}
    assert trained == {"Stable Diffusion 1 and 2", "SDXL", "Stable Diffusion 3", "FLUX.1"}


def test_lora_targets_that_are_left_out_are_those_of_diffusers_script_for_the_family() -> None:
    joint = {f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")}
    joint |= {f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")}
    forward = {f"{part}.{name}" for part in ("ff", "ff_context") for name in ("net.0.proj", "net.2")}
    assert set(LORA.targets(LoraRecipe(), STABLE_DIFFUSION_XL)) == {"to_q", "to_k", "to_v", "to_out.0"}
    assert set(LORA.targets(LoraRecipe(), STABLE_DIFFUSION_3)) == joint
    assert set(LORA.targets(LoraRecipe(), FLUX)) == joint | forward
    assert LORA.targets(LoraRecipe(targets=("to_v",)), FLUX) == ("to_v",)


def test_custom_diffusion_trains_the_text_streams_keys_and_values_where_there_is_no_cross_attention() -> None:
    assert CUSTOM_DIFFUSION.targets(CustomDiffusionRecipe(), STABLE_DIFFUSION_XL) == ("attn2.to_k", "attn2.to_v")
    for family in (STABLE_DIFFUSION_3, FLUX):
        assert family.cross_attention is None
        assert CUSTOM_DIFFUSION.targets(CustomDiffusionRecipe(), family) == ("add_k_proj", "add_v_proj")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (InversionRecipe(restore_rows=False), ("restore_rows", "one text encoder", "SDXL")),
        (InversionRecipe(trigger="<a/b>"), ("'<a/b>'", "slash")),
    ],
)
def test_what_files_for_several_text_encoders_cannot_hold_is_refused(
    recipe: InversionRecipe, words: tuple[str, ...]
) -> None:
    known = Base.at(PIPELINE).skeleton
    skeleton: Skeleton = replace(known, family=STABLE_DIFFUSION_XL)
    order = AdapterOrder("cup", "textual_inversion", recipe, "0" * 64, SUBJECT)
    order.check(known)
    with pytest.raises(InputError) as refused:
        order.check(skeleton)
    assert all(word in str(refused.value) for word in words)
