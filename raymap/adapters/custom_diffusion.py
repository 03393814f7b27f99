"""Custom Diffusion files: diffusers' and Adobe's (full and compressed) layouts -> replaced weights and tokens.

diffusers' own `load_attn_procs` does nothing with such a file (its issue 9320). So the file is read here, and its keys
and values replace `attn2.to_k` and `attn2.to_v` themselves. Files of raymap's own for Stable Diffusion 3 and FLUX.1
name a joint attention's `add_k_proj` and `add_v_proj` in the same way.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from raymap.adapters.container import Container
from raymap.adapters.textual_inversion import token
from raymap.adapters.update import Adapter, LowRank, Replacement, Token, Update
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError, MisfitError

CUSTOM_DIFFUSION_FILE = "pytorch_custom_diffusion_weights.safetensors"
_PROCESSOR = re.compile(
    r"(?:unet\.)?(?P<module>.+)\.processor\.(?P<to>to_[kvq]|to_out|add_[kv]_proj)_custom_diffusion"
    r"(?P<index>\.0)?\.(?P<kind>weight|bias)"
)


def key_of(parameter: str) -> str:
    """Return the diffusers key of a trained key or value weight, named as in the denoiser's own state."""
    module, _, projection = parameter.removesuffix(".weight").rpartition(".")
    return f"{module}.processor.{projection}_custom_diffusion.weight"


def read(file: Container, skeleton: Skeleton, trigger: str | None) -> Adapter | None:
    """Turn a Custom Diffusion file into an adapter; None if it is not one.

    Raises:
        InputError: an unknown key, a weight that the base lacks, a shape that does not fit.
    """
    if file.entries.keys() & {"unet", "modifier_token"}:
        return _adobe(file, skeleton, trigger)
    if not any("_custom_diffusion" in key for key in file.entries):
        return None
    updates: dict[str, Update] = {}
    for key, value in file.entries.items():
        if value == {} and key.endswith(".processor"):
            continue  # diffusers' pickle also names the processors of self-attention, which have no weights
        match = _PROCESSOR.fullmatch(key)
        if match is None or (match["to"] == "to_out") != (match["index"] is not None):
            raise InputError(str(file.path), f"holds the unknown key {key!r}", "give a Custom Diffusion file")
        name = f"{skeleton.denoiser}.{match['module']}.{match['to']}{match['index'] or ''}.{match['kind']}"
        updates[name] = _replacement(name, key, value, file, skeleton)
    return Adapter(updates)


def _adobe(file: Container, skeleton: Skeleton, trigger: str | None) -> Adapter:
    unknown = file.entries.keys() - {"unet", "modifier_token"}
    if unknown:
        problem = f"holds {min(unknown)!r} beside unet and modifier_token"
        raise InputError(str(file.path), problem, "give a delta of cross-attention weights")
    unet, modifiers = (_mapping(file, key) for key in ("unet", "modifier_token"))
    updates: dict[str, Update] = {}
    for key, value in unet.items():
        name = f"{skeleton.denoiser}.{key}"
        if isinstance(value, dict):
            updates[name] = _compressed(name, key, value, file, skeleton)
        else:
            updates[name] = _replacement(name, key, value, file, skeleton)
    if trigger is not None and len(modifiers) == 1:
        modifiers = {trigger: next(iter(modifiers.values()))}
    tokens: tuple[Token, ...] = tuple(token(name, value, file, skeleton) for name, value in modifiers.items())
    return Adapter(updates, tokens)


def _mapping(file: Container, key: str) -> dict[str, Any]:
    value = file.entries.get(key, {})
    if not isinstance(value, dict):
        raise InputError(str(file.path), f"{key} is not a mapping of names to tensors", "fetch it again")
    return value


def _replacement(name: str, key: str, value: Any, file: Container, skeleton: Skeleton) -> Replacement:
    shape = skeleton.shapes.get(name)
    if shape is None:
        raise MisfitError(str(file.path), f"{key}: the base has no such weight")
    if not isinstance(value, torch.Tensor) or value.shape != shape:
        held = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        problem = f"{key}: {held} does not fit {shape}"
        raise MisfitError(str(file.path), problem)
    return Replacement(value)


def _compressed(name: str, key: str, value: dict[str, Any], file: Container, skeleton: Skeleton) -> LowRank:
    """Return an update in Adobe's compressed form: ΔW = u @ v (its compress.py truncates ΔW's singular values)."""
    shape = skeleton.shapes.get(name)
    match value:
        case {"u": torch.Tensor() as u, "v": torch.Tensor() as v} if len(value) == 2 and u.dim() == v.dim() == 2:
            if (
                shape is not None
                and u.shape[1] == v.shape[0] > 0
                and (len(u), v.shape[1]) == (shape[0], math.prod(shape[1:]))
            ):
                return LowRank(v, u, 1.0)
    raise MisfitError(str(file.path), f"{key}: its u and v do not fit the base")
