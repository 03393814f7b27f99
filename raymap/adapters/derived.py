"""For interventions on an adapter: how much of the base it changes, and updates that replace its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch

from raymap.adapters.update import Adapter, LowRank, Replacement, Update
from raymap.base.families.family import Family
from raymap.study.interventions import Extent, Variant


def extent_of(adapter: Adapter, weights: Mapping[str, torch.Tensor], family: Family) -> Extent:
    """Return how much of its base an adapter changes.

    Args:
        weights: the base's own, by name.
    """
    changed = math.hypot(*(update.norm(weights[name]) for name, update in adapter.updates.items()))
    attention = [weight for name, weight in weights.items() if family.is_attention(name)]
    whole = math.hypot(*(float(torch.linalg.norm(weight.double())) for weight in attention))
    size = sum(update.size for update in adapter.updates.values())
    return Extent(family.levels(adapter.updates), changed / whole, size)


def derived(adapter: Adapter, variant: Variant, weights: Mapping[str, torch.Tensor]) -> Adapter:
    """Return the adapter that replaces another in a variant of the families `random` and `budget`.

    Args:
        weights: the base's own, by name.
    """
    updates: dict[str, Update]
    if variant.family == "random":
        updates = {name: _random(name, u, weights[name].cpu(), variant.level) for name, u in adapter.updates.items()}
    else:
        matrices = {name: weights[name].flatten(1).shape for name in adapter.updates if weights[name].dim() > 1}
        rank = max(1, int(variant.level) // sum(sum(shape) for shape in matrices.values()))
        updates = {name: _truncated(u, weights[name].cpu(), rank) for name, u in adapter.updates.items()}
    return Adapter(updates, adapter.tokens, adapter.rows)


def _random(name: str, update: Update, base: torch.Tensor, seed: str) -> Update:
    """Return a Gaussian update of the same Frobenius norm; a low-rank update keeps its rank."""
    key = hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8]
    random = torch.Generator("cpu").manual_seed(int.from_bytes(key, "big") >> 1)
    norm = update.norm(base)
    if isinstance(update, LowRank):
        down, up = (torch.randn(half.shape, generator=random) for half in (update.down, update.up))
        return LowRank(down, up, norm / LowRank(down, up, 1.0).norm(base))
    noise = torch.randn(base.shape, generator=random)
    return Replacement(base.float() + noise * (norm / float(torch.linalg.norm(noise))))


def _truncated(update: Update, base: torch.Tensor, rank: int) -> Update:
    """Return the best approximation of at most this rank (Eckart & Young 1936); updates of vectors stay as they are."""
    if base.dim() < 2 or (isinstance(update, LowRank) and update.down.shape[0] <= rank):
        return update
    u, s, v = torch.linalg.svd(update.delta(base).flatten(1), full_matrices=False)
    return LowRank(v[:rank].contiguous(), (u * s)[:, :rank].contiguous(), 1.0)
