"""What two drawn subjects are trained by."""

from __future__ import annotations

from pathlib import Path

from raymap.embedded.world.subjects import CAPTAIN, STAR_CUP
from raymap.personalize.orders import AdapterOrder, orders
from raymap.study.file import build_study
from raymap.study.methods.registry import METHODS


def pair_of_orders(folder: Path) -> tuple[AdapterOrder, ...]:
    """Return a LoRA of the star cup and one of the captain, each a few steps longer than to the first checkpoint."""
    subjects = [
        {
            "name": subject.name,
            "category": subject.category,
            "class_word": subject.class_word,
            "references": [str(p) for p in subject.write_references(folder / subject.name, n=2)],
        }
        for subject in (STAR_CUP, CAPTAIN)
    ]
    raw = {
        "name": "s",
        "seeds": 2,
        "prompts": {"scenes": ["a city at night"]},
        "methods": {"lora": {"steps": 104, "learning_rate": 1e-3, "targets": ["to_v"]}},
        "identity_control": False,
        "subjects": subjects,
    }
    return orders(build_study(raw, "test", folder), "0" * 64, {"star-cup": {}, "captain": {}})


def orders_of_all_methods(folder: Path) -> dict[str, AdapterOrder]:
    """Return, by name, the orders of a study that trains two drawn subjects by every method's embedded preset."""
    subjects = [
        {
            "name": subject.name,
            "category": subject.category,
            "class_word": subject.class_word,
            "references": [str(p) for p in subject.write_references(folder / subject.name, n=5)],
        }
        for subject in (STAR_CUP, CAPTAIN)
    ]
    raw = {
        "name": "s",
        "seeds": 2,
        "prompts": {"scenes": ["a city at night"]},
        "methods": {m: f"embedded-{m}" for m in METHODS},
        "subjects": subjects,
    }
    return {o.name: o for o in orders(build_study(raw, "test", folder), "0" * 64, {"star-cup": {}, "captain": {}})}
