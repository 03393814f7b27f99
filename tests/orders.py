"""What two drawn subjects are trained by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raymap.embedded.world.subjects import CAPTAIN, STAR_CUP
from raymap.personalize.orders import AdapterOrder, orders
from raymap.study.file import build_study
from raymap.study.methods.registry import METHODS


def pair_of_orders(folder: Path) -> tuple[AdapterOrder, ...]:
    """Return a LoRA of the star cup and one of the captain, each a few steps longer than to the first checkpoint."""
    methods = {"lora": {"steps": 104, "learning_rate": 1e-3, "targets": ["to_v"]}}
    return _orders(folder, references=2, methods=methods, identity_control=False)


def orders_of_all_methods(folder: Path) -> dict[str, AdapterOrder]:
    """Return, by name, the orders of a study that trains two drawn subjects by every method's embedded preset."""
    methods = {name: f"embedded-{name}" for name in METHODS}
    return {order.name: order for order in _orders(folder, references=5, methods=methods)}


def _orders(folder: Path, references: int, **keys: Any) -> tuple[AdapterOrder, ...]:
    """Return the orders of a study of the star cup and the captain, with further keys."""
    raw = {
        "name": "s",
        "seeds": 2,
        "prompts": {"scenes": ["a city at night"]},
        "subjects": [subject.entry(folder, references) for subject in (STAR_CUP, CAPTAIN)],
        **keys,
    }
    return orders(build_study(raw, "test", folder), "0" * 64, {"star-cup": {}, "captain": {}})
