"""Adapter files: each published layout loads to the update that it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from raymap.adapters.read import read_adapter
from raymap.adapters.update import LowRank
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.base.skeleton import Skeleton
from raymap.driver.prepare import prepare
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.study.file import load_study
from tests.adapters.layouts import (
    LAYOUTS,
    RANK,
    TEXT,
    TO_Q,
    VECTORS,
    expected,
    halves,
    keys_and_values,
    written,
)
from tests.small_study import small_study


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Base.at(PIPELINE).skeleton


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.set_num_threads(1)
    return load(PIPELINE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_lora_layout_means_the_same_update(layout: str, skeleton: Skeleton, tmp_path: Path) -> None:
    read = read_adapter(written(layout, skeleton, tmp_path / "lora.safetensors"), skeleton)
    wanted = expected(layout, skeleton, 1.0)
    assert read.method == "lora"
    assert read.adapter.updates.keys() == wanted.keys()
    for name, update in read.adapter.updates.items():
        delta = update.delta(torch.empty(skeleton.shapes[name]))
        assert torch.allclose(delta.double(), wanted[name], atol=1e-5)


def test_kohya_alpha_scales_by_alpha_over_rank(skeleton: Skeleton, tmp_path: Path) -> None:
    read = read_adapter(written("kohya", skeleton, tmp_path / "lora.safetensors", alpha=6.0), skeleton)
    for name, delta in expected("kohya", skeleton, 6.0 / RANK).items():
        found = read.adapter.updates[name].delta(torch.empty(skeleton.shapes[name]))
        assert torch.allclose(found.double(), delta, atol=1e-4)


def test_rank_and_alpha_patterns_are_those_of_peft(skeleton: Skeleton, tmp_path: Path) -> None:
    """A file by peft itself with patterns; peft's own merge is the reference."""
    unet = load(PIPELINE).unet
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["to_q", "to_k"], rank_pattern={"attn2.to_k": 2},
        alpha_pattern={"attn2.to_k": 6, "mid_block.*to_q": 1}, init_lora_weights=False,
    )  # fmt: skip
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    wrapped = get_peft_model(unet, config)
    wrapped.save_pretrained(tmp_path)
    read = read_adapter(tmp_path, skeleton)
    merged = wrapped.merge_and_unload().state_dict()
    ranks = {u.down.shape[0] for u in read.adapter.updates.values() if isinstance(u, LowRank)}
    assert ranks == {2, 4}
    for name, update in read.adapter.updates.items():
        key = name.removeprefix("unet.")
        assert torch.allclose(before[key] + update.delta(before[key]), merged[key], atol=1e-6), name


PARAMETERS = torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS, requires_grad=False)})
INVERSIONS: dict[str, tuple[str, Any, str]] = {
    "diffusers": ("learned_embeds.safetensors", {"<cup>": VECTORS}, "<cup>"),
    "diffusers pickle": ("learned_embeds.bin", {"<cup>": VECTORS}, "<cup>"),
    "A1111": (
        "mycup.pt",
        {
            "string_to_token": {"*": torch.tensor(265)},
            "string_to_param": {"*": VECTORS},
            "name": "my-cup",
            "step": 499,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
        },
        "mycup",
    ),
    "A1111 of torch 1": ("mycup.pt", {"string_to_param": PARAMETERS, "name": "mycup"}, "mycup"),
    "OneTrainer": ("mycup.safetensors", {"emp_params": VECTORS}, "mycup"),
    "advanced training": ("cup_emb.safetensors", {"clip_l": VECTORS}, "cup_emb"),
    "by the header": ("file.safetensors", {"a cup": VECTORS}, "a cup"),
    "by its name": ("mycup.bin", {"mycup": VECTORS}, "mycup"),
    "kohya": ("mycup.safetensors", {"emb_params": VECTORS}, "mycup"),
}


@pytest.mark.parametrize("layout", INVERSIONS)
def test_every_inversion_layout_means_the_same_token(layout: str, skeleton: Skeleton, tmp_path: Path) -> None:
    name, content, trigger = INVERSIONS[layout]
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(content, path, metadata={"modelspec.architecture": "stable-diffusion-v1/textual-inversion"})
    else:
        torch.save(content, path)
    read = read_adapter(path, skeleton)
    assert read.method == "textual_inversion"
    assert [t.trigger for t in read.adapter.tokens] == [trigger]
    assert torch.equal(read.adapter.tokens[0].vectors["text_encoder"], VECTORS)
    assert [t.trigger for t in read_adapter(path, skeleton, "<other>").adapter.tokens] == ["<other>"]


def test_a_single_vector_may_have_one_dimension(skeleton: Skeleton, tmp_path: Path) -> None:
    save_file({"<cup>": VECTORS[0].clone()}, tmp_path / "learned_embeds.safetensors")
    assert read_adapter(tmp_path, skeleton).adapter.tokens[0].vectors["text_encoder"].shape == (1, 96)


def test_adobes_delta_means_the_same_full_and_compressed(
    pipeline: StableDiffusionPipeline, skeleton: Skeleton, tmp_path: Path
) -> None:
    live = dict(pipeline.unet.named_parameters())
    weights = keys_and_values(pipeline, 0.05)
    compressed: dict[str, Any] = {}
    for name, weight in weights.items():
        u, s, v = torch.linalg.svd(weight - live[name].detach(), full_matrices=False)
        compressed[name] = {"u": (u @ torch.diag(s)).clone(), "v": v.clone()}
    token = {"<new1>": VECTORS[0].clone()}
    torch.save({"unet": weights, "modifier_token": token}, tmp_path / "delta.bin")
    torch.save({"unet": compressed, "modifier_token": token}, tmp_path / "compressed_delta.bin")
    full, small = (read_adapter(tmp_path / n, skeleton).adapter for n in ("delta.bin", "compressed_delta.bin"))
    assert [t.trigger for t in full.tokens] == [t.trigger for t in small.tokens] == ["<new1>"]
    for name, weight in weights.items():
        base = live[name].detach()
        assert torch.equal(base + full.updates[f"unet.{name}"].delta(base), base + (weight - base))
        assert torch.allclose(small.updates[f"unet.{name}"].delta(base), weight - base, atol=1e-5)


def test_what_diffusers_converts_to_kohyas_layout_is_read(skeleton: Skeleton, tmp_path: Path) -> None:
    """Its alpha is an integer, the rank."""
    down, up = halves(TO_Q, skeleton)
    peft = {f"unet.{TO_Q}.lora_A.weight": down, f"unet.{TO_Q}.lora_B.weight": up}
    converted = convert_state_dict_to_kohya(peft)
    assert not next(value for key, value in converted.items() if key.endswith(".alpha")).is_floating_point()
    save_file(converted, tmp_path / "lora.safetensors")
    update = read_adapter(tmp_path / "lora.safetensors", skeleton).adapter.updates[f"unet.{TO_Q}.weight"]
    assert torch.equal(update.delta(torch.zeros(up.shape[0], down.shape[1])), up @ down)


@pytest.mark.parametrize("token", ["<flora>", "<lora-cat>", "lora"])
def test_a_learned_token_may_be_called_what_it_will(token: str, skeleton: Skeleton, tmp_path: Path) -> None:
    save_file({token: VECTORS}, tmp_path / "learned_embeds.safetensors")
    read = read_adapter(tmp_path / "learned_embeds.safetensors", skeleton)
    assert (read.method, read.adapter.triggers) == ("textual_inversion", (token,))


def test_an_adapter_without_a_trigger_is_refused_where_the_protocol_needs_one(
    skeleton: Skeleton, tmp_path: Path
) -> None:
    written("kohya", skeleton, tmp_path / "nameless.safetensors")
    entry = {"path": "nameless.safetensors"}
    for given, refused in ((entry, True), (entry | {"trigger": "sks cup"}, False)):
        study = load_study(small_study(tmp_path, subjects=None, adapters=[given], protocol="triggered"))
        if refused:
            with pytest.raises(InputError, match=r"nameless.*trigger"):
                prepare(study)
        else:
            assert prepare(study).brought[0].card["phrase"] == "sks cup"


def test_a_half_may_be_named_after_its_adapter_and_a_text_encoder_after_comfyuis(
    skeleton: Skeleton, tmp_path: Path
) -> None:
    down, up = halves(TO_Q, skeleton)
    text_down, text_up = halves(TEXT, skeleton)
    tensors = {
        f"unet.{TO_Q}.lora_A.default_0.weight": down, f"unet.{TO_Q}.lora_B.default_0.weight": up,
        f"text_encoders.clip_l.transformer.text_model.{TEXT}.lora_A.weight": text_down,
        f"text_encoders.clip_l.transformer.text_model.{TEXT}.lora_B.weight": text_up,
    }  # fmt: skip
    save_file(tensors, tmp_path / "lora.safetensors")
    updates = read_adapter(tmp_path / "lora.safetensors", skeleton).adapter.updates
    assert updates.keys() == {f"unet.{TO_Q}.weight", f"text_encoder.{TEXT}.weight"}


def test_a_scale_that_lost_its_module_is_refused_where_a_module_lacks_one(skeleton: Skeleton, tmp_path: Path) -> None:
    path = written("kohya", skeleton, tmp_path / "lora.safetensors", alpha=6.0)
    tensors = load_file(path)
    save_file({**tensors, "lora_unet_any.alpha": torch.tensor(1.0)}, path)
    assert "lora_unet_any.alpha" in read_adapter(path, skeleton).adapter.notes[0]
    lost = {key.replace("to_q.alpha", "to_z.alpha"): value for key, value in tensors.items()}
    save_file(lost, path)
    with pytest.raises(InputError, match=r"to_z\.alpha belongs to no module"):
        read_adapter(path, skeleton)
