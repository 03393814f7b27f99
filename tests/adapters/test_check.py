"""`raymap check`: what it says of an adapter, of many, and of what is none."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raymap.adapters.glance import adapters_in, glance
from raymap.base.header import read_header
from raymap.base.model import Base
from raymap.base.skeleton import Skeleton
from raymap.embedded.model import PIPELINE
from tests.adapters.layouts import LAYOUTS, TO_Q, VECTORS, Tensors, expected, halves, kohya, written
from tests.commands import Ended

Command = Callable[..., Ended]
TAGS = {"10_sks cat": {"cat": 40, "window": 12}, "5_dog": {"dog": 30, "cat": 2}}
HEADER = {
    "ss_base_model_version": "sd_v1",
    "ss_tag_frequency": json.dumps(TAGS),
    "ss_dataset_dirs": json.dumps({"10_sks cat": {"n_repeats": 10}}),
    "ss_steps": "1500",
    "ss_optimizer": "AdamW8bit",
    "modelspec.title": "A sleepy cat",
    "modelspec.license": "CC0-1.0",
}


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Base.at(PIPELINE).skeleton


def with_header(path: Path, header: dict[str, str]) -> Path:
    save_file(load_file(path), path, metadata=header)
    return path


def test_each_adapter_has_a_paragraph_and_a_refused_one_its_reason(
    skeleton: Skeleton, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = written("kohya", skeleton, tmp_path / "good.safetensors", alpha=6.0)
    (tmp_path / "bad.safetensors").write_bytes(good.read_bytes()[:-3])
    save_file({"koal": VECTORS}, tmp_path / "koal.safetensors", metadata={"modelspec.license": "CC0-1.0"})
    (tmp_path / "suite.yaml").write_text(json.dumps({"animals": ["a koala in a tree"]}))
    names = ["good.safetensors", "koal.safetensors", "bad.safetensors"]
    for files, code in ((names[:2], 0), (names, 2)):
        ended = command("check", *files, "--suite", "suite.yaml")
        assert ended.code == code, ended.out + ended.err
        for line in (
            "✓ good.safetensors · LoRA · ",
            "  fits      embedded: 4 weights, 3,648 numbers, rank 3, alpha 6",
            "✓ koal.safetensors · Textual Inversion · ",
            "  trigger   koal",
            "  licence   CC0-1.0",
            "  warning   its trigger 'koal' matches inside the prompt 'a koala in a tree'",
        ):
            assert line in ended.out
        assert ("✗ bad.safetensors" in ended.out) == (code == 2)
        assert ("  refused   is cut off: its end is missing; fetch it again" in ended.out) == (code == 2)


def test_what_the_header_says_is_shown_of_a_refused_file_too(
    skeleton: Skeleton, tmp_path: Path, command: Command
) -> None:
    path = with_header(written("kohya", skeleton, tmp_path / "lora.safetensors"), HEADER)
    other = tmp_path / "sd15.safetensors"
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    down, up = torch.zeros(4, 768), torch.zeros(320, 4)
    save_file({f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}, other, metadata=HEADER)
    for file, code in ((path, 0), (other, 2)):
        ended = command("check", file, "--base", "embedded")
        assert ended.code == code
        for line in (
            "  title     A sleepy cat",
            "(its header says sd_v1)",
            "  words     sks cat (in the header)",
            "  captions  cat 42, dog 30, window 12",
            "  trained   steps: 1500; optimizer: AdamW8bit",
            "  licence   CC0-1.0",
        ):
            assert line in ended.out
    assert "is for Stable Diffusion 1, and the base is raymap's embedded base" in ended.out
    assert "with --base, such as stable-diffusion-v1-5/stable-diffusion-v1-5" in ended.out


def test_without_a_base_a_file_is_held_against_the_kind_that_it_was_made_for(tmp_path: Path, command: Command) -> None:
    files = {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", (320, 768)),
        "stabilityai/stable-diffusion-xl-base-1.0": (
            "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k", (640, 2048)),
        "black-forest-labs/FLUX.1-dev": ("transformer.single_transformer_blocks.3.attn.to_q", (3072, 3072)),
        "Qwen/Qwen-Image": ("transformer_blocks.59.attn.to_q", (3072, 3072)),
        "stabilityai/stable-diffusion-3.5-medium": ("transformer.transformer_blocks.20.attn.to_q", (1536, 1536)),
    }  # fmt: skip
    for base, (layer, (rows, columns)) in files.items():
        halves_ = {f"{layer}.lora_down.weight": torch.ones(2, columns), f"{layer}.lora_up.weight": torch.ones(rows, 2)}
        save_file(halves_, path := tmp_path / "lora.safetensors")
        ended = command("check", path)
        assert ended.code == 0, ended.out
        assert f"fits      {base}: 1 weight, " in ended.out
        assert "known architecture; give --base for norms" in ended.out


def test_a_header_that_contradicts_the_layers_is_warned_of(skeleton: Skeleton, tmp_path: Path) -> None:
    path = written("kohya", skeleton, tmp_path / "lora.safetensors", more=to_k(skeleton))
    assert not glance(path).warnings
    (warning,) = glance(with_header(path, {"ss_base_model_version": "sdxl_base_v1-0"})).warnings
    assert warning == "its header names 'sdxl_base_v1-0', but its layers are those of raymap's embedded base"


def test_the_norm_of_each_block_is_that_of_its_weights(skeleton: Skeleton, tmp_path: Path, command: Command) -> None:
    """From ΔW in float64, and from the weights in the base's files."""
    path = written("kohya", skeleton, tmp_path / "lora.safetensors", alpha=6.0)
    ended = command("check", "--json", path)
    (record,) = json.loads(ended.out)["adapters"]
    weights: Tensors = {}
    for part, file in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        own = load_file(PIPELINE / part / f"{file}.safetensors")
        weights |= {f"{part}.{name.removeprefix('text_model.')}": value.double() for name, value in own.items()}
    sums: dict[str, list[float]] = {}
    for name, delta in expected("kohya", skeleton, 2.0).items():
        part, stem, number, *_ = name.split(".")
        block = sums.setdefault(part if part == "text_encoder" else f"{stem}.{number}", [0.0, 0.0])
        block[0] += float(delta.square().sum())
        block[1] += float(weights[name].square().sum())
    assert [block["name"] for block in record["blocks"]] == ["down_blocks.0", "up_blocks.1", "text_encoder"]
    for block in record["blocks"]:
        norm, whole = (math.sqrt(total) for total in sums[block["name"]])
        assert block["norm"] == pytest.approx(norm, rel=1e-5)
        assert block["share"] == pytest.approx(norm / whole, rel=1e-5)
    norm, whole = (math.sqrt(sum(total[k] for total in sums.values())) for k in (0, 1))
    assert record["norm"] == pytest.approx(norm / whole, rel=1e-5)


def test_a_folder_of_many_adapters_is_listed_by_headers(
    skeleton: Skeleton, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "loras"
    (folder / "styles" / "one").mkdir(parents=True)
    written("kohya", skeleton, folder / "a.safetensors", more=to_k(skeleton))
    save_file({"emb_params": VECTORS}, folder / "mycup.safetensors")
    (folder / "page.safetensors").write_text("<!DOCTYPE html><title>Log in</title>")
    torch.save({320: [{"linear.0.weight": torch.zeros(4, 4)}]}, folder / "hyper.pt")
    written("peft", skeleton, folder / "styles" / "one" / "pytorch_lora_weights.safetensors")
    save_file({"clip_l": VECTORS}, folder / "styles" / "one" / "one_emb.safetensors")
    monkeypatch.chdir(tmp_path)
    ended = command("check", "loras")
    assert ended.code == 2  # the page and the hypernetwork
    rows = {line.split()[0]: line for line in ended.out.splitlines()[1:6]}
    assert rows.keys() == {"a.safetensors", "mycup.safetensors", "page.safetensors", "hyper.pt", "styles/one"}
    assert "raymap's embedded base" in rows["a.safetensors"]
    assert "Textual Inversion" in rows["mycup.safetensors"]
    assert "is a web page (HTML)" in rows["page.safetensors"]
    assert "is a hypernetwork" in rows["hyper.pt"]
    assert "LoRA" in rows["styles/one"]
    assert "5 adapters: 2 LoRA, " in ended.out
    assert "2 of them cannot be used" in ended.out
    assert "‖ΔW‖/‖W‖" not in ended.out
    assert "‖ΔW‖/‖W‖" in command("check", "loras", "--full").out
    listed = json.loads(command("check", "loras", "--json").out)["adapters"]
    whole = json.loads(command("check", "loras", "--json", "--full").out)["adapters"]
    for key in ("path", "kind", "made_for", "tags"):
        assert [record[key] for record in listed] == [record[key] for record in whole]
    assert {record["kind"] for record in listed} == {"LoRA", "Textual Inversion", "hypernetwork", None}
    assert [record["problem"] is None for record in whole] == [record["problem"] is None for record in listed]


def test_a_folder_of_one_adapter_is_one(skeleton: Skeleton, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    written("peft raw", skeleton, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    assert adapters_in(folder) == [folder]
    assert adapters_in(tmp_path) == [folder]


def test_headers_alone_say_that_a_file_is_for_another_base(tmp_path: Path, command: Command) -> None:
    layer = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    down, up = torch.zeros(4, 2048), torch.zeros(640, 4)
    save_file({f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}, path := tmp_path / "xl.safetensors")
    assert command("check", "--headers", path).code == 0
    ended = command("check", "--headers", path, "--base", "embedded")
    assert ended.code == 2
    assert "is for SDXL, and the base is raymap's embedded base" in ended.out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_glance_sees_the_kind_and_the_rank_of_every_layout(layout: str, skeleton: Skeleton, tmp_path: Path) -> None:
    seen = glance(written(layout, skeleton, tmp_path / "file.safetensors"))
    assert seen.kind is not None
    assert (seen.kind.name, seen.problem) == ("a LoRA", None)
    assert seen.tensors == len(read_header(seen.path).shapes)
    assert seen.bytes == seen.path.stat().st_size


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lycoris_mid_block_resnets_0_conv1.new_w1", "is a LyCORIS of an unknown kind, which raymap does not read"),
        ("lora_controlnet_down_blocks_0.lora_down.weight", "is a ControlNet-LoRA, which raymap does not read"),
        (
            "down_blocks.0.motion_modules.0.proj.lora_A.weight",
            "is a LoRA of a motion module (AnimateDiff), which raymap",
        ),
        ("ip_adapter.1.to_k_ip.weight", "is an IP-Adapter, not an adapter of a base's weights"),
        ("decoder.conv_in.weight", "is an autoencoder (VAE) alone, not an adapter of a base's weights"),
    ],
)
def test_what_is_not_read_is_named(key: str, words: str, tmp_path: Path, command: Command) -> None:
    save_file({key: torch.zeros(4, 4)}, path := tmp_path / "file.safetensors")
    for arguments in ((path,), (path, "--headers"), (path, "--base", "embedded")):
        ended = command("check", *arguments)
        assert ended.code == 2
        assert words in ended.out


def test_a_checkpoint_in_a_pickle_is_refused_by_what_it_is(tmp_path: Path, command: Command) -> None:
    layer = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    torch.save({"state_dict": {layer: torch.zeros(64, 96)}}, path := tmp_path / "old.ckpt")
    ended = command("check", path)
    assert ended.code == 2
    assert "is a denoiser alone, and no safetensors file; convert it to safetensors" in ended.out


def test_a_whole_model_is_compared_with_its_base_alone(tmp_path: Path, command: Command) -> None:
    shutil.copytree(PIPELINE, folder := tmp_path / "model")
    weights = load_file(path := folder / "unet" / "diffusion_pytorch_model.safetensors")
    name = f"{TO_Q}.weight"
    save_file(weights | {name: weights[name] * 1.5}, path)
    ended = command("check", folder)
    assert ended.code == 0, ended.out
    assert "  made for  raymap's embedded base\n" in ended.out
    assert "‖ΔW‖/‖W‖ = 0.5" in ended.out
    assert "1 differ from the base's" in ended.out
    layer = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({layer: torch.zeros(320, 768)}, other := tmp_path / "sd15.safetensors")
    ended = command("check", other)
    assert ended.code == 0, ended.out
    assert "  made for  Stable Diffusion 1\n" in ended.out
    assert "give the base that it was trained from as --base" in ended.out


def to_k(skeleton: Skeleton) -> Tensors:
    """Return a layer of kohya's layout whose width tells the base."""
    layer = TO_Q.replace("attn1.to_q", "attn2.to_k")
    down, up = halves(layer, skeleton)
    return {f"{kohya(layer)}.lora_down.weight": down, f"{kohya(layer)}.lora_up.weight": up}
