"""Files of learned tokens, and files that are no adapters, damaged in many ways: refused by name, or read whole."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raymap.adapters.glance import glance
from raymap.adapters.read import Read, read_adapter
from raymap.base.model import Base
from raymap.base.skeleton import Skeleton
from raymap.driver.check import check_files
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from tests.adapters.layouts import VECTORS, Tensors, written
from tests.adapters.test_tokens import skeleton_of

NUMBER = 1000
LIMIT_S = 20
"""After so many seconds a single file is taken to hang; the slowest takes a tenth of a second."""
TOLD = re.compile(r"(bundle_emb\..*\.)?(clip_[lg]|t5(xxl)?|e[mp][bp]_params|string_to_param\..*)$|<.+>$", re.DOTALL)
"""What a key is called that says of itself that it is a token's."""
Source = Callable[[Path], Path]


def saved(name: str, tensors: Tensors, header: dict[str, str] | None = None) -> Source:
    def write(folder: Path) -> Path:
        save_file({key: value.clone() for key, value in tensors.items()}, folder / name, metadata=header)
        return folder / name

    return write


def pickled(name: str, content: dict[Any, Any]) -> Source:
    def write(folder: Path) -> Path:
        torch.save(content, folder / name)
        return folder / name

    return write


def bundled(folder: Path) -> Path:
    more = {"bundle_emb.<v1 cat>.clip_l": VECTORS.clone(), "bundle_emb.v0dog.string_to_param.*": VECTORS[:1].clone()}
    return written("kohya", Base.at(PIPELINE).skeleton, folder / "lora.safetensors", alpha=2.0, more=more)


A1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "inside", "step": 9}
PARAMETERS = torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS.clone(), requires_grad=False)})
PARTS = {"image_proj": {"proj.weight": torch.randn(8, 4)}, "ip_adapter": {"1.to_k_ip.weight": torch.randn(4, 4)}}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
SDXL = {"clip_l": torch.randn(2, 768), "clip_g": torch.randn(2, 1280)}
SOURCES: dict[str, Source] = {
    "diffusers": saved("learned_embeds.safetensors", {"<cup>": VECTORS, "<v0mug>": VECTORS[0]}),
    "diffusers pickle": pickled("learned_embeds.bin", {"<cup>": VECTORS}),
    "A1111": pickled("v0cup.pt", A1111),
    "A1111 of torch 1": pickled("v0cup.pt", A1111 | {"string_to_param": PARAMETERS}),
    "kohya": saved("v0cup.safetensors", {"emb_params": VECTORS}, {"ss_steps": "9"}),
    "OneTrainer": saved("v0cup.safetensors", {"emp_params": VECTORS}),
    "advanced training": saved("v0cup_emb.safetensors", {"clip_l": VECTORS}),
    "SDXL": saved("v0cup.safetensors", SDXL),
    "SD 3": saved("v0cup.safetensors", SDXL | {"t5": torch.randn(2, 4096)}),
    "bundled": bundled,
}
STRANGE: dict[str, Source] = {
    "output vectors": saved("v0cup.safetensors", {"emb_params": VECTORS, "emb_params_out": VECTORS}),
    "embeddings of prompts": saved("prompts.safetensors", {"prompt_embeds": torch.randn(60, 96)}),
    "hypernetwork": pickled("hyper.pt", {320: [{"linear.0.weight": torch.randn(8, 4)}], "step": 1, "name": "hyper"}),
    "VAE": saved("vae.safetensors", {"decoder.conv_in.weight": torch.randn(8, 4), "quant_conv.bias": torch.randn(8)}),
    "ControlNet": saved("control.safetensors", {"control_model.input_blocks.0.0.weight": torch.randn(8, 4)}),
    "IP-Adapter": pickled("ip.bin", PARTS),
    "page": lambda folder: text(folder / "page.safetensors", "<!DOCTYPE html><title>Log in</title>" * 9),
    "pointer": lambda folder: text(folder / "lfs.safetensors", POINTER),
    "message": lambda folder: text(folder / "error.safetensors", json.dumps({"error": "Unauthorized"})),
}
"""Files that are refused whatever their damage, but for one that turns them into a file of tokens."""


ALL = SOURCES | STRANGE


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def damage(path: Path, random_: random.Random) -> None:
    """Damage a file in one of many ways: bits, ends, and names, shapes, formats and values of its tensors."""
    data = bytearray(path.read_bytes())
    kind = random_.choice(["flip", "flip header", "cut", "grow", "none", *["entries"] * 6])
    if kind.startswith("flip"):
        data[random_.randrange(min(len(data), 300) if kind == "flip header" else len(data))] ^= 1 << random_.randrange(
            8
        )
    elif kind == "cut":
        del data[random_.randrange(len(data)) :]
    elif kind == "grow":
        data += bytes(random_.randrange(1, 100))
    if kind != "entries":
        path.write_bytes(data)
        return
    try:
        safe = path.suffix == ".safetensors"
        entries: Any = load_file(path) if safe else torch.load(path, weights_only=False)
    except Exception:  # a text, which has no entries
        path.write_bytes(data[::-1])
        return
    at = entries
    while not any(isinstance(value, torch.Tensor) for value in at.values()):
        inner = [value for value in at.values() if isinstance(value, dict | torch.nn.ParameterDict) and len(value)]
        if not inner:
            return
        at = random_.choice(inner)
    key = random_.choice([name for name, value in at.items() if isinstance(value, torch.Tensor) and value.dim()])
    own = dict(at.items())
    mutate(own, key, random_)
    frozen = isinstance(at, torch.nn.ParameterDict)
    own = {k: v for k, v in own.items() if not frozen or (k and "." not in k)}  # the others it cannot hold
    at.clear()
    at.update({k: torch.nn.Parameter(v, requires_grad=False) if frozen else v for k, v in own.items()})
    save_file({k: v.contiguous().clone() for k, v in entries.items()}, path) if safe else torch.save(entries, path)


def mutate(entries: Any, key: str, random_: random.Random) -> None:
    """Change one tensor among the entries of a file, or its name, or add another one."""
    value = entries[key].detach()
    match random_.randrange(12):
        case 0:
            del entries[key]
            letter = random_.choice(key)
            entries[key.replace(letter, random_.choice("abc.1_<>é "), 1)] = value
        case 1:
            entries[key] = value.reshape(-1)[: max(1, value.numel() // 2)].clone()
        case 2:
            entries[key] = value.transpose(0, -1).contiguous()
        case 3:
            entries[key] = torch.full_like(value, random_.choice([torch.nan, torch.inf]))
        case 4:
            entries[key] = value.to(random_.choice([torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn]))
        case 5:
            entries[key] = value.to(random_.choice([torch.int64, torch.bool, torch.uint8]))
        case 6:
            entries[f"{key}{random_.choice(['_out', '.weight', '.alpha', 'x'])}"] = value.clone()
        case 7:
            entries[random_.choice(["prompt_embeds", "clip_l", "emb_params", "lora_unet_a.alpha", ""])] = value.clone()
        case 8:
            entries[key] = value[None]
        case 9:
            entries[key] = torch.zeros(0, value.shape[-1])
        case 10:
            entries[key] = torch.cat([value.reshape(-1, value.shape[-1])] * random_.choice([40, 90]))
        case 11:
            del entries[key]


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Return a file's tensors by name, nested ones by all of their names, read without raymap."""

    def tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, dict | torch.nn.ParameterDict):
            for key, inner in value.items():
                yield from tensors(inner, f"{name}.{key}" if name else str(key))

    safe = path.read_bytes()[8:9] == b"{"
    return dict(tensors(load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=False)))


def test_a_thousand_mutated_files_are_refused_by_name_or_read_whole(tmp_path: Path) -> None:
    random_ = random.Random(4)
    skeletons = {name: Base.at(PIPELINE).skeleton for name in ALL}
    skeletons |= {"SDXL": skeleton_of("StableDiffusionXLPipeline"), "SD 3": skeleton_of("StableDiffusion3Pipeline")}
    refused, loaded = [], 0
    for k in range(NUMBER):
        name = list(ALL)[k % len(ALL)]
        (folder := tmp_path / str(k)).mkdir()
        path = ALL[name](folder)
        damage(path, random_)
        began = time.process_time()
        read = outcome(path, skeletons[name])
        seen = glance(path)
        assert time.process_time() - began < LIMIT_S
        if isinstance(read, str):
            refused.append(name)
            assert path.name in read
            assert "\n" not in read
            continue
        loaded += 1
        assert seen.problem is None, (name, seen.problem)
        named = any("is not used" in note for note in read.adapter.notes)
        held = tensors_of(path)
        vectors = [value for key, value in held.items() if value.dim() and not key.startswith("string_to_token")]
        assert read.adapter.size == sum(value.numel() for value in vectors) or named, name
        if read.adapter.triggers is not None:  # images may be proved to be the base's own
            by_name = path.name.startswith("learned_embeds") or [*held] == [path.stem]
            assert by_name or all(TOLD.match(key) or key.startswith("string_to_token") for key in held), name
    assert loaded > NUMBER / 10
    assert set(refused) == ALL.keys()
    assert all(refused.count(name) >= 0.9 * NUMBER // len(ALL) for name in STRANGE)


def outcome(path: Path, skeleton: Skeleton) -> Read | str:
    try:
        return read_adapter(path, skeleton)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", ALL)
def test_check_describes_every_damaged_file(name: str, tmp_path: Path) -> None:
    random_ = random.Random(name)
    paths = []
    for k in range(8):
        (folder := tmp_path / str(k)).mkdir()
        paths.append(ALL[name](folder))
        damage(paths[-1], random_)
    findings = check_files(paths, "embedded")
    assert [finding.seen.path for finding in findings] == paths
    assert all(finding.problem or finding.size for finding in findings)
