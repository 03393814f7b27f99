"""Adapter files that are damaged, foreign or hostile: refused by name, and nothing is left half applied."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from raymap.adapters.custom_diffusion import key_of
from raymap.adapters.read import read_adapter
from raymap.adapters.resident import AdapterStore
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.base.skeleton import Skeleton
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from tests.adapters.layouts import LAYOUTS, TO_Q, VECTORS, Tensors, keys_and_values, written


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Base.at(PIPELINE).skeleton


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.set_num_threads(1)
    return load(PIPELINE)


class Evil:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def refuse(path: Path, skeleton: Skeleton, *words: str) -> None:
    with pytest.raises(InputError) as refused:
        read_adapter(path, skeleton)
    for word in (path.name, *words):
        assert word in str(refused.value), str(refused.value)


def test_a_pickle_with_code_is_refused_and_runs_nothing(skeleton: Skeleton, tmp_path: Path) -> None:
    torch.save({"x": Evil(tmp_path / "touched")}, tmp_path / "evil.bin")
    refuse(tmp_path / "evil.bin", skeleton, "plain tensors")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ("no tensors",)),
        ({"<cup>": torch.zeros(1, 768)}, ("768", "96")),
        ({"<cup>": torch.full((1, 96), torch.nan)}, ("non-finite",)),
        ({"<cup>": torch.zeros(0, 96)}, ("(0, 96)",)),
        ({"cat": torch.zeros(1, 96)}, ("nothing in it says", "trigger")),
        ({"clip_l": torch.zeros(1, 96), "clip_g": torch.zeros(1, 96)}, ("SDXL",)),
        ({"model.diffusion_model.input_blocks.1.0.in_layers.2.weight": torch.zeros(3)}, ("a denoiser alone",)),
        ({f"unet.nothing.lora.{half}.weight": torch.zeros(3, 3) for half in ("down", "up")}, ("no such module",)),
        ({f"unet.{TO_Q}.lora_B.bias": torch.zeros(64)}, ("other half",)),
        ({"lora_unet_mid_block_attn.hada_w1_a": torch.zeros(2)}, ("hada_w1_b", "LoHa")),
        ({"lora_unet_mid_block_attn.oft_blocks": torch.zeros(2)}, ("an OFT",)),
        ({f"unet.{TO_Q}.lora.down.weight": torch.zeros(2, 64)}, ("other half",)),
        ({"a.b.c.weight": torch.zeros(2, 3, 4)}, ("no known layout",)),
        ({f"unet.{TO_Q}.lora.down.weight": torch.zeros(2, 64, dtype=torch.int64)}, ("int64",)),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    content: Tensors, words: tuple[str, ...], skeleton: Skeleton, tmp_path: Path
) -> None:
    save_file(content, tmp_path / "adapter.safetensors")
    refuse(tmp_path / "adapter.safetensors", skeleton, *words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ("empty",)),
        (b"hello", ("cut off",)),
        ((2**40).to_bytes(8, "little") + b"{}", ("not a readable",)),
        ((90_000_000).to_bytes(8, "little") + b"{" + b" " * 1000, ("cut off",)),
    ],
)
def test_what_is_no_safetensors_file_is_refused(
    data: bytes, words: tuple[str, ...], skeleton: Skeleton, tmp_path: Path
) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    refuse(tmp_path / "x.safetensors", skeleton, *words)


def mutate(source: Path, target: Path, random_: random.Random) -> None:
    """Write a damaged copy: a flipped bit, a cut, a renamed key, swapped or reshaped tensors."""
    kind = random_.choice(["flip", "flip header", "cut", "rename", "swap", "reshape"])
    data = bytearray(source.read_bytes())
    if kind.startswith("flip"):
        at = random_.randrange(200 if kind == "flip header" else len(data))
        data[at] ^= 1 << random_.randrange(8)
    elif kind == "cut":
        del data[random_.randrange(len(data)) :]
    if kind in ("flip", "flip header", "cut"):
        target.write_bytes(data)
        return
    pickled = source.suffix != ".safetensors"
    content: dict[str, Any] = torch.load(source, weights_only=True) if pickled else load_file(source)
    inner = content.get("unet", content)
    keys = sorted(inner)
    one, other = random_.choice(keys), random_.choice(keys)
    if kind == "rename":
        inner[one.replace(random_.choice(one), random_.choice("abc.1_"), 1)] = inner.pop(one)
    elif kind == "swap":
        inner[one], inner[other] = inner[other].clone(), inner[one].clone()
    else:
        inner[one] = inner[one].reshape(-1)[: max(1, inner[one].numel() // 2)].clone()
    (torch.save if pickled else save_file)(content, target)


def test_two_hundred_mutated_files_are_refused_or_load_whole(
    pipeline: StableDiffusionPipeline, skeleton: Skeleton, tmp_path: Path
) -> None:
    sources = [written(layout, skeleton, tmp_path / f"{n}.safetensors") for n, layout in enumerate(LAYOUTS)]
    weights = keys_and_values(pipeline, 0.05)
    save_file({key_of(k): v for k, v in weights.items()}, tmp_path / "cd.safetensors")
    torch.save({"unet": weights, "modifier_token": {"<new1>": VECTORS[0].clone()}}, tmp_path / "delta.bin")
    save_file({"<cup>": VECTORS}, tmp_path / "ti.safetensors")
    sources += [tmp_path / "cd.safetensors", tmp_path / "delta.bin", tmp_path / "ti.safetensors"]
    base = {k: v.detach().clone() for k, v in pipeline.unet.state_dict().items()}
    random_ = random.Random(0)
    loaded, complaints = 0, []
    folder = tmp_path / "mutated"
    for k in range(200):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        source = sources[k % len(sources)]
        mutate(source, folder / source.name, random_)
        try:
            adapter = read_adapter(folder / source.name, skeleton).adapter
        except InputError as error:
            complaints.append((source.name, str(error)))
            continue
        loaded += 1
        store = AdapterStore(pipeline)
        store.add("mutated", adapter)
        store.swap("mutated")
        store.restore()
    assert len(complaints) > 60
    assert all(name in complaint and "\n" not in complaint for name, complaint in complaints)
    assert loaded > 20
    assert all(torch.equal(v, base[k]) for k, v in pipeline.unet.state_dict().items())
