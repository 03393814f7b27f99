"""What does not fit a run folder, or the base, is refused before anything is trained, drawn or written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.refusals import Call, refused
from tests.small_study import small_study


def test_an_adapter_for_another_base_is_refused(tmp_path: Path, call: Call, finished: Path) -> None:
    adapter = tmp_path / "elsewhere"
    shutil.copytree(finished / "adapters" / "star-cup-lora", adapter)
    card = json.loads((adapter / "adapter.json").read_text())
    (adapter / "adapter.json").write_text(json.dumps(card | {"base_sha256": "0" * 64}))
    path = small_study(tmp_path, subjects=None, adapters=[str(adapter)])
    refused(call, "run", path, names=("elsewhere", "another base"))


def test_adapter_weights_that_differ_from_their_card_are_refused(tmp_path: Path, call: Call, finished: Path) -> None:
    adapter = tmp_path / "changed"
    shutil.copytree(finished / "adapters" / "star-cup-lora", adapter)
    weights = adapter / "pytorch_lora_weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    path = small_study(tmp_path, subjects=None, adapters=[str(adapter)])
    refused(call, "run", path, names=("pytorch_lora_weights.safetensors", "adapter.json"))


def test_a_folder_of_another_study_is_refused(tmp_path: Path, call: Call, finished: Path) -> None:
    other = small_study(tmp_path, seeds=3)
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    refused(call, "run", other, "--output", copy, names=("copy", "another study"))


def test_a_folder_of_another_study_is_refused_before_anything_is_trained_or_written(
    tmp_path: Path, call: Call, finished: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    held = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    fewer, more = {"prompts": {"objects": ["a red cup"]}}, {"methods": {"lora": {"steps": 20}, "textual_inversion": {}}}
    for changes, names in ((fewer, ("another study", "`prompts`")), (more, ("copy",))):
        other = small_study(tmp_path, **changes)
        for command in ("run", "train"):
            refused(call, command, other, "--output", copy, names=names)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == held


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"method": "identity"}, ("method", "'identity'", "a lora")),
        ({"name": "../../outside"}, ("name", "'../../outside'")),
    ],
)
def test_an_adapters_card_that_leads_elsewhere_is_refused(
    tmp_path: Path, call: Call, finished: Path, said: dict[str, str], names: tuple[str, ...]
) -> None:
    adapter = tmp_path / "brought"
    shutil.copytree(finished / "adapters" / "star-cup-lora", adapter)
    card = json.loads((adapter / "adapter.json").read_text())
    (adapter / "adapter.json").write_text(json.dumps(card | said))
    refused(call, "run", small_study(tmp_path, subjects=None, adapters=[str(adapter)]), names=("adapter.json", *names))
