"""What `dtype: auto` chooses from a device's memory and from what survives of the adapters' updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from raymap.adapters.brought import Found
from raymap.driver.auto import chosen
from raymap.driver.memory import Resident
from raymap.driver.prepare import Prepared, prepare
from raymap.embedded.model import PIPELINE
from raymap.plan.blocks import make_plan
from raymap.study.file import load_study
from tests.small_study import small_study

GPU = {"gpus_per_worker": 1, "accelerator_type": "H100"}


def lora_file(path: Path, scale: float) -> Path:
    """Write a LoRA of two of the embedded base's layers."""
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for layer in ("attn1.to_q", "attn2.to_v"):
        name = f"unet.down_blocks.1.attentions.0.transformer_blocks.0.{layer}"
        weight = stored(f"{name.removeprefix('unet.')}.weight")
        down, up = torch.randn(4, weight.shape[1], generator=random), torch.randn(weight.shape[0], 4, generator=random)
        up *= scale * weight.norm() / (up @ down).norm()
        tensors |= {f"{name}.lora.down.weight": down, f"{name}.lora.up.weight": up}
    save_file(tensors, path)
    return path


def stored(name: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(PIPELINE / "unet" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        weight: torch.Tensor = file.get_tensor(name).float()
    return weight


def study_of(folder: Path, scale: float, resources: Mapping[str, Any], **more: Any) -> Prepared:
    file = lora_file(folder / "some.safetensors", scale)
    path = small_study(
        folder,
        subjects=None,
        adapters=[str(file)],
        dtype="auto",
        resources={"workers": 1, **resources},
        **{"batch_size": None, **more},
    )
    return prepare(load_study(path))


def test_an_adapter_that_survives_is_drawn_in_the_familys_16_bits(tmp_path: Path) -> None:
    found = study_of(tmp_path, 0.01, GPU)
    assert (found.study.dtype, found.study.memory.offload) == ("float16", "none")
    assert found.choice.startswith("auto: float16, batches of ")
    assert "keeps 100% of every adapter's update" in found.choice
    assert found.brought[0].survives["float16"] > 0.99


def test_an_adapter_that_would_be_weakened_is_drawn_in_32_bits(tmp_path: Path) -> None:
    found = study_of(tmp_path, 0.0001, GPU)
    assert found.brought[0].survives["float16"] < 0.9
    assert found.study.dtype == "float32"


def test_a_study_without_a_gpu_is_drawn_in_32_bits(tmp_path: Path) -> None:
    found = study_of(tmp_path, 0.01, {})
    assert found.study.dtype == "float32"
    assert "workers compute on a CPU" in found.choice


def test_what_a_small_device_has_no_room_for_waits_elsewhere(tmp_path: Path) -> None:
    def needed(prepared: Prepared) -> int:
        return prepared.resident.needed(prepared.study)

    roomy = study_of(tmp_path, 0.01, GPU)
    sizes = [needed(roomy)]
    for share in (0.7, 0.5, 0.35):
        room = share * sizes[0] / 2**30
        found = study_of(tmp_path, 0.01, {**GPU, "gpu_memory": room})
        assert needed(found) <= 0.85 * room * 2**30
        assert needed(found) < sizes[-1]
        sizes.append(needed(found))
    assert "nothing is known to fit" in study_of(tmp_path, 0.01, {**GPU, "gpu_memory": 0.001}).choice


def test_what_a_study_gives_stays(tmp_path: Path) -> None:
    memory = {"offload": "encoders", "decode": "tiled"}
    found = study_of(tmp_path, 0.01, {**GPU, "gpu_memory": 1}, batch_size=6, memory=memory)
    assert (found.study.batch_size, found.study.memory.offload, found.study.memory.decode) == (6, "encoders", "tiled")


def test_a_choice_is_part_of_the_digest_and_the_same_again(tmp_path: Path) -> None:
    def digest(prepared: Prepared) -> str:
        return make_plan(prepared.study, tuple(found.info for found in prepared.brought), {}).digest

    first, again = (study_of(tmp_path, 0.01, GPU) for _ in range(2))
    weak = study_of(tmp_path, 0.0001, GPU)
    assert digest(first) == digest(again)
    assert digest(replace(first, study=weak.study)) != digest(first)
    explicit = first.study.model_copy(update={"dtype": "float16"})
    assert chosen(explicit, first.resident) == (explicit, "")


@pytest.mark.parametrize("shares", [(0.95, 0.91), (0.95, 0.89)])
def test_the_weakest_adapter_decides(tmp_path: Path, shares: tuple[float, float]) -> None:
    found = study_of(tmp_path, 0.01, GPU)
    auto = found.study.model_copy(update={"dtype": "auto"})
    brought: list[Found] = [replace(found.brought[0], survives={"float16": share}) for share in shares]
    study, _ = chosen(auto, Resident(found.base, found.orders, brought))
    assert study.dtype == ("float16" if min(shares) >= 0.9 else "float32")
