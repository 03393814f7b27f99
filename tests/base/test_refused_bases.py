"""Bases that cannot be used are refused before anything starts: exit code 2, and one line that says what they are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raymap.base.folder import OUTLINES
from raymap.base.model import Base, open_base
from raymap.base.shapes import shapes_of
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from tests.base.test_shapes import hollow
from tests.checkpoints import UNET
from tests.pipelines import save_tiny

VAE = PIPELINE / "vae" / "diffusion_pytorch_model.safetensors"
WHOLE = VAE.read_bytes()
FILES = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a pointer of Git LFS"),
    "html": (b"<!DOCTYPE html><html>please log in</html>", "is a web page"),
    "zip": (b"PK\x03\x04 archive/data.pkl", "is a pickle"),
    "pickle": (b"\x80\x02}q\x00.aaaaaaaaaaa", "is a pickle"),
    "gguf": (b"GGUF\x03\x00\x00\x00aaaaaaaaaa", "is a GGUF file"),
    "empty": (b"", "is empty"),
    "header cut": (WHOLE[:100], "is cut off"),
    "cut": (WHOLE[: len(WHOLE) // 2], "is cut off"),
    "vae": (WHOLE, "is an autoencoder"),
    "text": (b"hello, this is no checkpoint of anything at all", "is not a readable safetensors file"),
}
TENSORS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "kohya": ({"lora_unet_down_blocks_0.lora_down.weight": (4, 8)}, "is a LoRA; give it as an adapter"),
    "peft": ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 8)}, "is a LoRA; give it as an adapter"),
    "lokr": ({"lycoris_blocks_0.lokr_w1": (4, 8)}, "is a LoKr; give it as an adapter"),
    "inversion": ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "is a Textual Inversion"),
    "embedding": ({"emb_params": (4, 768)}, "is a Textual Inversion"),
    "hypernetwork": ({"768.0.linear.0.weight": (1536, 768)}, "is a hypernetwork"),
    "ControlNet": ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "is a ControlNet"),
    "scaled": ({"blocks.0.weight": (8, 8), "blocks.0.scale_weight": ()}, "is a quantised checkpoint"),
    "unknown": ({f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, "is no checkpoint of a known architecture"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_other_kinds_are_named(kind: str, tmp_path: Path) -> None:
    content, problem = FILES[kind]
    (path := tmp_path / "model.safetensors").write_bytes(content)
    for arguments in ((str(path),), ("embedded", str(path))):
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {problem}") as caught:
            open_base(*arguments)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", TENSORS)
def test_files_of_other_tensors_are_named(kind: str, tmp_path: Path) -> None:
    shapes, problem = TENSORS[kind]
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path := tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {problem}"):
        open_base(str(path))


def test_a_checkpoint_with_a_suffix_of_pickles_is_refused_and_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"PK\x03\x04 archive/data.pkl")
    with pytest.raises(InputError, match="is a pickle, which could run code; convert it to safetensors"):
        open_base(str(tmp_path / "model.ckpt"))
    with pytest.raises(InputError, match="cannot be read"):
        open_base(str(tmp_path / "none.safetensors"))


def test_weights_that_do_not_fit_the_base_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    hollow(path, shapes_of(OUTLINES / "sdxl", "unet"))
    with pytest.raises(InputError, match=r"holds 2,567,463,684 weights, and the base's denoiser, a Stable Diffusion"):
        open_base("embedded", str(path))
    with pytest.raises(InputError, match="stands beside a base that is a single file"):
        open_base(str(path), str(path))


def without(name: str) -> Callable[[Path], None]:
    """Return what takes a file or folder from a base."""

    def remove(folder: Path) -> None:
        at = folder / name
        shutil.rmtree(at) if at.is_dir() else at.unlink()

    return remove


def edited(name: str, **keys: object) -> Callable[[Path], None]:
    """Return what changes keys of a base's file."""

    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return edit


def partly(folder: Path) -> None:
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


DAMAGES = {
    "no VAE": (without("vae"), "lacks the folder of its vae"),
    "no tokenizer": (without("tokenizer"), "lacks the folder of its tokenizer"),
    "no scheduler": (without("scheduler"), "lacks the folder of its scheduler"),
    "no weights": (without("unet/diffusion_pytorch_model.safetensors"), "unet: lacks its weights"),
    "no configuration": (without("text_encoder/config.json"), "text_encoder: lacks its config.json"),
    "no shard": (partly, "unet: lacks diffusion_pytorch_model-00001-of-00002.safetensors"),
    "no denoiser": (edited("model_index.json", unet=[None, None]), "lists no denoiser"),
    "other width": (
        edited("text_encoder/config.json", hidden_size=768),
        "text_encoder: its weights are of other shapes",
    ),
    "flow": (
        edited("model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"]),
        "is for flow_prediction, and a Stable Diffusion 1 and 2 predicts epsilon or v_prediction",
    ),
    "sample": (edited("scheduler/scheduler_config.json", prediction_type="sample"), "is for sample"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_is_not_whole_is_refused(damage: str, tmp_path: Path) -> None:
    shutil.copytree(PIPELINE, folder := tmp_path / "base")
    do, problem = DAMAGES[damage]
    do(folder)
    with pytest.raises(InputError, match=re.escape(problem)):
        open_base(str(folder))


def test_weight_files_that_are_pointers_of_git_lfs_are_named(tmp_path: Path) -> None:
    shutil.copytree(PIPELINE, folder := tmp_path / "base")
    (path := folder / "text_encoder" / "model.safetensors").write_bytes(FILES["lfs"][0])
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: is a pointer of Git LFS"):
        open_base(str(folder))


def test_commands_end_with_exit_code_2_and_one_line(tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    (path := tmp_path / "model.safetensors").write_bytes(FILES["html"][0])
    for arguments in (
        ("check", path, "--base", path),
        ("audit", "--adapter", path, "--base", path, "--output", tmp_path / "run"),
        ("audit", "--adapter", path, "--weights", path, "--output", tmp_path / "run"),
    ):
        code, said = call(*arguments)
        assert code == 2, said
        assert "is a web page" in said
        assert len(said.strip().splitlines()) == 1, said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["stable_diffusion_3", "qwen_image", "hunyuan_image", "wan", "pixart_alpha", "sana"])
def test_whole_folders_are_accepted(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(kind, tmp_path / kind)
    assert open_base(str(folder)).sha256 == Base.at(folder).sha256
