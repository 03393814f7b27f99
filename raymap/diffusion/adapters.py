"""Adapters as weight updates: read from their files, kept resident, swapped in place, restored to the bit."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import nn

from raymap.errors import InputError

LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_KEY = re.compile(r"^unet\.(?P<module>.+)\.(?:lora\.(?P<down>down|up)|lora_(?P<ab>[AB]))\.weight$")
METADATA = "lora_adapter_metadata"
"""The header entry in which peft and diffusers keep a LoRA's configuration, alpha included."""


@dataclass(frozen=True)
class LowRank:
    """One linear layer's update: scale · up @ down, with down (rank, in) and up (out, rank), float32."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Return ΔW in the weight's shape, dtype and device."""
        return ((self.up @ self.down) * self.scale).view_as(weight).to(weight.dtype)


def read_lora(path: Path, unet: nn.Module) -> dict[str, LowRank]:
    """Read a diffusers LoRA file and check it against the UNet it is meant for: every key is used or refused.

    Alpha comes from the file's metadata; without it alpha equals the rank, as diffusers assumes.

    Raises:
        InputError: an unreadable file, an unknown key, a shape that does not fit, a non-finite value.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
            config = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(str(path), f"is no readable safetensors file ({error})", "train or fetch it again") from error
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        match = LORA_KEY.match(key)
        if match is None:
            raise InputError(str(path), f"holds the unknown key {key!r}", "give a UNet LoRA in diffusers format")
        if not torch.isfinite(value).all():
            raise InputError(str(path), f"{key} holds non-finite values", "train or fetch it again")
        half = "down" if match["down"] == "down" or match["ab"] == "A" else "up"
        halves.setdefault(match["module"], {})[half] = value
    if not halves:
        raise InputError(str(path), "holds no LoRA weights", "give a UNet LoRA in diffusers format")
    modules = dict(unet.named_modules())
    updates = {}
    for name, pair in halves.items():
        module = modules.get(name)
        if module is None or pair.keys() != {"down", "up"}:
            raise InputError(str(path), f"{name} does not fit the base", "use the base it was trained for")
        rank = pair["down"].shape[0]
        fits = pair["up"].shape[1] == rank and pair["up"].shape[0] * pair["down"].shape[1] == module.weight.numel()
        if not fits or pair["up"].shape[0] != module.weight.shape[0]:
            shapes = f"{tuple(pair['up'].shape)} x {tuple(pair['down'].shape)} on {tuple(module.weight.shape)}"
            raise InputError(str(path), f"{name}: shapes {shapes} do not fit", "use the base it was trained for")
        updates[name] = LowRank(pair["down"], pair["up"], _alpha(config, name, rank) / rank)
    return updates


def check_lora(path: Path, base: Path) -> None:
    """Check a LoRA file against the UNet of a base folder, from its configuration alone.

    Raises:
        InputError: as `read_lora`.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(base / "unet"))
    read_lora(path, unet)


def _alpha(config: dict[str, object], module: str, rank: int) -> float:
    patterns = config.get("unet.alpha_pattern") or {}
    if isinstance(patterns, dict) and module in patterns:
        return float(patterns[module])
    alpha = config.get("unet.lora_alpha")
    return float(alpha) if isinstance(alpha, int | float) else float(rank)


class AdapterStore:
    """All adapters of a run, resident beside the UNet whose weights they change.

    A swap writes W0 + ΔW into the live weights, from pristine copies of W0: pointers stay, nothing is recompiled,
    and `restore` brings back W0 bit for bit (fusing and unfusing does not).
    """

    def __init__(self, unet: nn.Module) -> None:
        self._modules = dict(unet.named_modules())
        self._adapters: dict[str, dict[str, LowRank]] = {}
        self._pristine: dict[str, torch.Tensor] = {}
        self._changed: set[str] = set()
        self.active: str | None = None

    def add(self, name: str, updates: dict[str, LowRank]) -> None:
        """Make an adapter resident on the UNet's device."""
        for module, update in updates.items():
            weight = self._modules[module].weight
            if module not in self._pristine:
                if module in self._changed:
                    raise RuntimeError(f"{module} is adapted: restore before adding")
                self._pristine[module] = weight.detach().clone()
            updates[module] = LowRank(update.down.to(weight.device), update.up.to(weight.device), update.scale)
        self._adapters[name] = updates

    @torch.no_grad()
    def swap(self, name: str | None) -> None:
        """Make `name` the adapter in force; None restores the base.

        Raises:
            KeyError: for a name that was never added.
        """
        if name == self.active:
            return
        updates = {} if name is None else self._adapters[name]
        for module in self._changed - updates.keys():
            self._modules[module].weight.copy_(self._pristine[module])
        for module, update in updates.items():
            weight = self._modules[module].weight
            torch.add(self._pristine[module], update.delta(weight), out=weight)
        self._changed = set(updates)
        self.active = name

    def restore(self) -> None:
        """Bring the base weights back, bit for bit."""
        self.swap(None)
