"""What is known of a base before its weights are read: its built modules and transformers' tokenizer say the same."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from raymap.base.folder import OUTLINES
from raymap.base.header import Shapes
from raymap.base.model import Base
from raymap.base.shapes import INDEX, built, shapes_in, shapes_of
from raymap.base.skeleton import word_id
from raymap.bench.models import random_base
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.study.suite import read_suite

PARTS = ("unet", "vae", "text_encoder")


def hollow(path: Path, shapes: Shapes) -> None:
    """Write a safetensors file with a whole header, and a hole of the file system where gigabytes would be."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    written = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.truncate(8 + len(written) + end)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded base; a tiny one in shards; one of Stable Diffusion 1.5's shapes, with the hub's names of files."""
    tiny, sd15 = (tmp_path_factory.mktemp(name) for name in ("tiny", "sd15"))
    random_base("tiny").save_pretrained(tiny, max_shard_size="300KB")
    pipeline = random_base("sd15", "meta")
    for part in ("unet", "vae"):
        getattr(pipeline, part).save_config(sd15 / part)
        hollow(sd15 / part / "diffusion_pytorch_model.safetensors", shapes_in(getattr(pipeline, part)))
    pipeline.text_encoder.config.save_pretrained(sd15 / "text_encoder")
    shutil.copy(OUTLINES / "sd15" / INDEX, sd15)
    text = {f"text_model.{name}": shape for name, shape in shapes_in(pipeline.text_encoder).items()}
    hollow(sd15 / "text_encoder" / "model.fp16.safetensors", text | {"text_model.embeddings.position_ids": (1, 77)})
    return {"embedded": PIPELINE, "tiny": tiny, "sd15": sd15}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("base", ["embedded", "tiny", "sd15"])
def test_headers_name_the_parameters_and_shapes_that_the_built_module_has(
    base: str, part: str, folders: dict[str, Path]
) -> None:
    folder = folders[base]
    assert list((folder / part).glob("*.safetensors"))
    assert shapes_of(folder, part) == built(folder, part)


def test_a_model_in_shards_has_those_of_all(folders: dict[str, Path]) -> None:
    assert len(list((folders["tiny"] / "unet").glob("*.safetensors"))) > 1


def test_a_base_without_safetensors_is_built_from_its_configuration(tmp_path: Path) -> None:
    shutil.copytree(PIPELINE, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    for part in PARTS:
        assert shapes_of(tmp_path / "base", part) == shapes_of(PIPELINE, part)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"unet/diffusion_pytorch_model\.safetensors: is a pointer of Git LFS"):
        shapes_of(tmp_path, "unet")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base with its tokenizer as older ones lie on the hub: vocabulary, merges, configuration."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copytree(PIPELINE, folder, dirs_exist_ok=True)
    model = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    return folder


@pytest.mark.parametrize("layout", ["tokenizer.json", "vocab.json"])
def test_a_skeletons_tokenizer_gives_the_ids_that_transformers_gives(layout: str, bare: Path) -> None:
    folder = PIPELINE if layout == "tokenizer.json" else bare
    assert (folder / "tokenizer" / layout).exists()
    skeleton, peer = Base.at(folder).skeleton, CLIPTokenizer.from_pretrained(PIPELINE / "tokenizer")
    assert skeleton.tokenizer is not None
    odd = ["", "  two   spaces\tand a tab ", "Ünïcödé ﬁ １２ 漢字 🙂", "it's <sks> #1!", "cup " * 90]
    for text in [*odd, *(prompt.text for prompt in read_suite("paper", "suite", Path()))]:
        assert skeleton.tokenizer.encode(text).ids == peer(text, verbose=False).input_ids
    assert skeleton.vocabulary == peer.get_vocab()
    assert skeleton.text_length == peer.model_max_length
    assert word_id(skeleton.tokenizer, "cup") == peer("cup", add_special_tokens=False).input_ids[0]
    assert word_id(skeleton.tokenizer, "ktn") == peer.get_vocab()["ktn"]
    assert word_id(skeleton.tokenizer, "no one word") is None


def test_a_tokenizer_file_that_keeps_truncation_and_padding_is_read_without(tmp_path: Path) -> None:
    shutil.copytree(PIPELINE, tmp_path / "base")
    tokenizer = Tokenizer.from_file(str(PIPELINE / "tokenizer" / "tokenizer.json"))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "base" / "tokenizer" / "tokenizer.json"))
    read = Base.at(tmp_path / "base").skeleton.tokenizer
    assert read is not None
    assert len(read.encode("a red car on a street").ids) == 8
