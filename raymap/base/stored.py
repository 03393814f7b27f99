"""Single weights of a base, read from its files without loading its pipeline."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import safe_open

from raymap.base.shapes import FILES, class_of, loaded


def stored_weights(folder: Path, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Return weights by name (`unet.….weight`), in the format in which they are stored.

    Those are left out that no safetensors file holds.
    """
    found: dict[str, torch.Tensor] = {}
    for component in sorted({name.partition(".")[0] for name in names}):
        kind = class_of(folder, component)
        own = [name.partition(".")[2] for name in names if name.startswith(f"{component}.")]
        for path in sorted({path for pattern in FILES for path in (folder / component).glob(pattern)}):
            with safe_open(path, framework="pt") as file:
                held = {loaded(kind, key): key for key in file.keys()}  # noqa: SIM118
                found |= {f"{component}.{name}": file.get_tensor(held[name]) for name in own if name in held}
    return found
