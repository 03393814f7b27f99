"""Reads the method's files."""

from __future__ import annotations

import torch

from raymap.adapters.container import Container
from raymap.adapters.update import Adapter, Replacement, Update
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError

FILE = "attention_output.safetensors"
SUFFIX = ".whole.weight"  # a key without .weight could be that of a learned token


def key_of(parameter: str) -> str:
    """Return the key of a trained weight, named as in the UNet's own state."""
    return parameter.removesuffix(".weight") + SUFFIX


def read(file: Container, skeleton: Skeleton, trigger: str | None) -> Adapter | None:
    if not all(key.endswith(SUFFIX) for key in file.entries):
        return None
    updates: dict[str, Update] = {}
    for key, value in file.entries.items():
        name = f"unet.{key.removesuffix(SUFFIX)}.weight"
        if not isinstance(value, torch.Tensor) or value.shape != skeleton.shapes.get(name):
            raise InputError(str(file.path), f"{key} does not fit the base", "use the base it was trained for")
        updates[name] = Replacement(value)
    return Adapter(updates)
