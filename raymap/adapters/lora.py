"""LoRA files: diffusers, peft and kohya/A1111 key layouts -> low-rank updates of named weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.utils.other import get_pattern_key

from raymap.adapters.card import config_of
from raymap.adapters.container import Container
from raymap.adapters.update import Adapter, LowRank
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError, MisfitError

LORA_FILE = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"
"""The header entry in which peft and diffusers keep a LoRA's configuration, alpha included."""
PLAIN = "give a plain LoRA; its relatives cannot be read"

_PARTS = {"down": "down", "up": "up", "A": "down", "B": "up", "lora_down": "down", "lora_up": "up", "alpha": "alpha"}
_C = r"(?P<component>unet|transformer|text_encoder(?:_[23])?)\."
_DOTTED = (
    re.compile(_C + r"(?P<module>.+)\.(?:lora|lora_linear_layer)\.(?P<part>down|up)\.weight"),
    re.compile(_C + r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>A|B)(?:\.default)?\.weight"),
    re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>A|B)(?:\.default)?\.weight"),
    re.compile(_C + r"(?P<module>.+)\.(?P<part>alpha)"),
)
_PROCESSOR = re.compile(r"(?:unet\.)?(?P<module>.+)\.processor\.to_(?P<to>q|k|v|out)_lora\.(?P<part>down|up)\.weight")
_KOHYA = re.compile(r"lora_(?P<te>unet|te|te1)_(?P<flat>.+?)\.(?:(?P<part>lora_down|lora_up)\.weight|(?P<alpha>alpha))")
_MARK = re.compile(r"(?:^|[._])lora(?:_[A-Za-z]|\.)|\.(?:hada_|lokr_|dora_scale)")
_UNSUPPORTED = {
    "hada_": "a LoHa", "lokr_": "a LoKr", "dora_scale": "a DoRA", "lora_magnitude_vector": "a DoRA",
    "lora_mid": "a LoCon with a Tucker core", "lora_te2_": "an SDXL LoRA", ".bias": "a LoRA with biases",
}  # fmt: skip


@dataclass
class _Halves:
    key: str
    parts: dict[str, torch.Tensor] = field(default_factory=dict)


def read(file: Container, skeleton: Skeleton, trigger: str | None) -> Adapter | None:
    """Turn a LoRA file into updates; None if it is not one.

    Alpha is the file's own (kohya's `.alpha`, the header's configuration, or peft's adapter_config.json beside it).
    Without one, alpha equals the rank, as diffusers assumes. A rank-stabilized LoRA (Kalajdzievski 2023) is scaled by
    alpha/√rank.

    Raises:
        InputError: a key or layer that is unknown, a missing half, a shape that does not fit; or the file is one of
            LoRA's relatives, which cannot be read.
    """
    if not any(_MARK.search(key) and "." in key for key in file.entries):  # a learned token may be called <lora-cat>
        return None
    modules: dict[str, _Halves] = {}
    for key, value in file.entries.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(str(file.path), f"{key} is not a tensor", "fetch it again")
        module, part = _place(key, skeleton, file)
        halves = modules.setdefault(module, _Halves(key))
        if part in halves.parts:
            raise InputError(str(file.path), f"{key} is in it twice, in two layouts", "fetch it again")
        halves.parts[part] = value
    settings = _settings(file)
    return Adapter({f"{name}.weight": _update(name, own, skeleton, settings, file) for name, own in modules.items()})


def _place(key: str, skeleton: Skeleton, file: Container) -> tuple[str, str]:
    """Return module and part of a key; the module is `component.dotted.name`, and the base has it."""
    for mark, what in _UNSUPPORTED.items():
        if mark in key:
            raise InputError(str(file.path), f"{key} belongs to {what}", PLAIN)
    if match := _PROCESSOR.fullmatch(key):
        to = "to_out.0" if match["to"] == "out" else f"to_{match['to']}"
        module, part = f"{skeleton.denoiser}.{match['module']}.{to}", match["part"]
    elif match := _KOHYA.fullmatch(key):
        component = "unet" if match["te"] == "unet" else "text_encoder"
        flat = f"{component}_{match['flat']}"
        module, part = skeleton.flat.get(flat, flat), match["part"] or "alpha"
    else:
        match = next((m for pattern in _DOTTED if (m := pattern.fullmatch(key))), None)
        if match is None:
            raise MisfitError(str(file.path), f"holds the unknown key {key!r}")
        component = match.groupdict().get("component") or skeleton.denoiser
        # Files name a text encoder's weights as the hub does; some classes' names have lost the first part since.
        prefix = skeleton.prefixes.get(component, "")
        module, part = f"{component}.{match['module'].removeprefix(prefix)}", match["part"]
    if f"{module}.weight" not in skeleton.shapes:
        raise MisfitError(str(file.path), f"{key}: the base has no such module")
    return module, _PARTS[part]


def _update(module: str, halves: _Halves, skeleton: Skeleton, settings: Mapping[str, Any], file: Container) -> LowRank:
    missing = {"down", "up"} - halves.parts.keys()
    if missing:
        raise InputError(str(file.path), f"{halves.key}: its other half is missing", "fetch it again")
    down, up = (halves.parts[part] for part in ("down", "up"))
    shape = skeleton.shapes[f"{module}.weight"]
    matrices = down.dim() >= 2 and up.dim() >= 2 and down.numel() > 0
    down, up = (down.flatten(1), up.flatten(1)) if matrices else (down, up)
    if not matrices or up.shape[1] != down.shape[0] or (up.shape[0], down.shape[1]) != (shape[0], math.prod(shape[1:])):
        problem = f"{halves.key}: shapes {tuple(up.shape)} x {tuple(down.shape)} do not fit {shape}"
        raise MisfitError(str(file.path), problem)
    rank = down.shape[0]
    alpha = _alpha(module, halves, rank, settings, file)
    stabilized = settings.get("use_rslora") or settings.get(f"{module.partition('.')[0]}.use_rslora")
    update = LowRank(down.contiguous(), up.contiguous(), alpha / (rank**0.5 if stabilized else rank))
    if not update.norm(down) < torch.finfo(torch.float32).max:
        raise InputError(str(file.path), f"{halves.key}: its update overflows", "train or fetch it again")
    return update


def _alpha(module: str, halves: _Halves, rank: int, settings: Mapping[str, Any], file: Container) -> float:
    if "alpha" in halves.parts:
        if halves.parts["alpha"].numel() != 1:
            raise InputError(str(file.path), f"{halves.key}: its alpha is not a number", "fetch it again")
        return float(halves.parts["alpha"].item())
    component, _, name = module.partition(".")
    for prefix in (f"{component}.", ""):
        patterns, alpha = (settings.get(f"{prefix}{key}") for key in ("alpha_pattern", "lora_alpha"))
        if isinstance(patterns, dict):
            alpha = patterns.get(get_pattern_key(list(patterns), name), alpha)
        if isinstance(alpha, int | float) and not isinstance(alpha, bool):
            return float(alpha)
    return float(rank)


def _settings(file: Container) -> Mapping[str, Any]:
    """Return the configuration of a LoRA: peft's file beside it, else its own header's."""
    config = config_of(file.path)
    where, what = (str(config), "") if config else (str(file.path), f"its {METADATA} ")
    try:
        settings = json.loads(config.read_bytes() if config else file.metadata.get(METADATA, "{}"))
    except (OSError, ValueError) as error:
        raise InputError(where, f"{what}cannot be read as JSON ({error})", "fetch it again") from error
    if not isinstance(settings, dict):
        raise InputError(where, f"{what}is not a JSON object", "fetch it again")
    if any(value for key, value in settings.items() if key.rpartition(".")[2] == "use_dora"):
        raise InputError(str(file.path), "is a DoRA", PLAIN)
    return settings
