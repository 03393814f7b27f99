"""Adapters that a study brings along: what the run folder gets is what was looked at, and draws the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from raymap.adapters.brought import Found, bring
from raymap.adapters.card import CARD
from raymap.adapters.read import load_adapter, read_adapter
from raymap.adapters.update import LowRank
from raymap.base.model import Base
from raymap.base.skeleton import Skeleton
from raymap.driver.prepare import Prepared, prepare
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.study.file import load_study
from tests.small_study import small_study

TO_V = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Base.at(PIPELINE).skeleton


def lora(skeleton: Skeleton) -> dict[str, torch.Tensor]:
    rows, columns = skeleton.shapes[f"unet.{TO_V}.weight"]
    key = f"base_model.model.{TO_V}"
    return {f"{key}.lora_A.weight": torch.ones(4, columns), f"{key}.lora_B.weight": torch.ones(rows, 4)}


def prepared(folder: Path, entry: dict[str, Any]) -> tuple[Prepared, Found]:
    found = prepare(load_study(small_study(folder, subjects=None, adapters=[entry])))
    return found, found.brought[0]


@pytest.mark.parametrize("given", ["peft", "peft/adapter_model.safetensors"])
def test_a_lora_by_peft_keeps_its_alpha_in_the_run_folder(given: str, skeleton: Skeleton, tmp_path: Path) -> None:
    source = tmp_path / "peft"
    source.mkdir()
    save_file(lora(skeleton), source / "adapter_model.safetensors")
    digests = set()
    for alpha, scale in ((32, 8.0), (4, 1.0)):
        (source / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": alpha}))
        study, found = prepared(tmp_path, {"path": given, "name": "cup"})
        target = tmp_path / f"run-{alpha}" / "cup"
        bring(found, target, study.base.sha256)
        update = load_adapter(target, skeleton).updates[f"unet.{TO_V}.weight"]
        assert isinstance(update, LowRank)
        assert update.scale == scale
        digests.add(found.info.sha256)
    assert len(digests) == 2
    with pytest.raises(InputError, match="is not the adapter"):
        bring(found, tmp_path / "run-32" / "cup", study.base.sha256)
    (target / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="is not what"):
        load_adapter(target, skeleton)


def test_a_base_may_lie_beside_its_study(tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(PIPELINE)
    judges = {"clip": "embedded", "lpips": "embedded"}
    study = load_study(small_study(tmp_path, base="mine", **judges))
    assert prepare(study).base.folder == tmp_path / "mine"


def test_another_trigger_is_another_adapter(skeleton: Skeleton, tmp_path: Path) -> None:
    save_file(lora(skeleton), tmp_path / "cup.safetensors")
    study, found = prepared(tmp_path, {"path": "cup.safetensors", "trigger": "sks cup"})
    bring(found, tmp_path / "run" / "cup", study.base.sha256)
    bring(found, tmp_path / "run" / "cup", study.base.sha256)
    _, other = prepared(tmp_path, {"path": "cup.safetensors", "trigger": "xyz cup"})
    with pytest.raises(InputError, match="as the study names it"):
        bring(other, tmp_path / "run" / "cup", study.base.sha256)


def test_an_adapter_that_updates_weights_has_a_control_that_does(skeleton: Skeleton, tmp_path: Path) -> None:
    save_file(lora(skeleton), tmp_path / "cup.safetensors")
    for methods, controls in (
        ({"textual_inversion": {"steps": 2}}, ["identity-textual_inversion", "identity-lora"]),
        ({"custom_diffusion": {"steps": 2}}, ["identity-custom_diffusion"]),
    ):
        study = prepare(load_study(small_study(tmp_path, adapters=["cup.safetensors"], methods=methods)))
        assert [order.name for order in study.orders if order.subject is None] == controls


def test_a_study_may_say_more_than_an_adapters_card(skeleton: Skeleton, tmp_path: Path) -> None:
    width = skeleton.text_widths["text_encoder"]
    save_file({"<star>": torch.ones(width)}, tmp_path / "learned_embeds.safetensors")
    study, found = prepared(tmp_path, {"path": "learned_embeds.safetensors", "name": "star"})
    assert (found.info.subject_category, found.triggers) == ("unknown", ("<star>",))
    bring(found, tmp_path / "first", study.base.sha256)
    _, again = prepared(tmp_path, {"path": "first", "category": "face", "trigger": "<sun>"})
    assert (again.info.name, again.info.subject_category, again.triggers) == ("star", "face", ("<sun>",))
    bring(again, tmp_path / "second", study.base.sha256)
    card = json.loads((tmp_path / "second" / CARD).read_text())
    assert (card["subject_category"], card["phrase"]) == ("face", "<sun>")
    assert load_adapter(tmp_path / "second", skeleton).triggers == ("<sun>",)
    _, third = prepared(tmp_path, {"path": "second"})
    assert (third.info, third.triggers) == (again.info, ("<sun>",))
    assert read_adapter(tmp_path / "second", skeleton, "<sun>").adapter.triggers == ("<sun>",)


def test_what_its_user_should_know_of_an_adapter_is_said_before_a_run(skeleton: Skeleton, tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.ones(1, 96)}, "name": "inside"}, tmp_path / "v0cup.pt")
    study, found = prepared(tmp_path, {"path": "v0cup.pt"})
    (remark,) = study.remarks
    assert remark.startswith("adapter v0cup: its trigger is the file's name, as in A1111")
    bring(found, tmp_path / "brought", study.base.sha256)
    again, _ = prepared(tmp_path, {"path": "brought"})
    assert not again.remarks


def test_a_run_folder_keeps_the_trigger_that_its_card_names(skeleton: Skeleton, tmp_path: Path) -> None:
    """That of older versions too, which called A1111's tokens by the name inside, and took any vector for a token."""
    torch.save({"string_to_param": {"*": torch.ones(1, 96)}, "name": "v0inside"}, tmp_path / "v0cup.pt")
    save_file({"v0style": torch.ones(1, 96)}, tmp_path / "style.safetensors")
    for entry in ({"path": "v0cup.pt"}, {"path": "style.safetensors", "trigger": "v0style"}):
        study, found = prepared(tmp_path, entry)
        target = tmp_path / found.info.name
        bring(found, target, study.base.sha256)
        card = json.loads((target / CARD).read_text())
        (target / CARD).write_text(json.dumps(card | {"token": None, "phrase": "v0inside"}))
        assert load_adapter(target, skeleton).triggers == ("v0inside",)
