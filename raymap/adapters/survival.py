"""How much of an adapter's update survives where base and update are stored in fewer bits.

With W already stored, rounding W + ΔW loses what is smaller than half a step between neighbouring numbers. The share
that survives is that of the written difference along ΔW: ⟨round(W + ΔW) − W, ΔW⟩ / ⟨ΔW, ΔW⟩, 1 where nothing is lost on
average. Adding ΔW·x to a layer's output instead, in the same format, loses the same share.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from raymap.adapters.update import Update

FORMATS: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
}
"""Formats in which weights are stored, by name; fp8 with a scale for each weight that uses the whole range."""
LAYERS = 12
"""How many of an adapter's updates are looked at, spread evenly over their names."""


def sampled(updates: Mapping[str, Update]) -> tuple[str, ...]:
    """Return the names of the updates that are looked at."""
    names = sorted(updates)
    return tuple(names[k * len(names) // LAYERS] for k in range(LAYERS)) if len(names) > LAYERS else tuple(names)


def surviving(updates: Mapping[str, Update], weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return the share of an adapter's update that survives in each format; nothing for one that is zero.

    Args:
        weights: the base's own, in their full precision, of the updates that are looked at at least.
    """
    along, whole = dict.fromkeys(FORMATS, 0.0), 0.0
    for name in sampled(updates):
        weight = weights[name].float()
        delta = updates[name].delta(weight).to(weight.device)
        whole += float(delta.double().square().sum())
        largest = max(float(weight.abs().max()), float((weight + delta).abs().max()))
        for kind, dtype in FORMATS.items():
            scale = torch.finfo(dtype).max / largest if kind == "fp8" and largest else 1.0
            stored = (scale * weight).to(dtype).float() / scale
            written = (scale * (stored + delta)).to(dtype).float() / scale - stored
            along[kind] += float((written.double() * delta.double()).sum())
    return {kind: share / whole for kind, share in along.items()} if whole else {}
