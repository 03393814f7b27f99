"""What is known of a base's weights before they are read: by its files' headers the same as by its built modules."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from raymap.bench.models import random_base
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.shapes import Shapes, built, shapes_in, shapes_of

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
    with pytest.raises(InputError, match=r"unet/diffusion_pytorch_model\.safetensors: is no readable safetensors"):
        shapes_of(tmp_path, "unet")
