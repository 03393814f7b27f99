"""Plans of synthetic prompts and adapters, for streams of batches that no model draws."""

from __future__ import annotations

from pathlib import Path

from raymap.plan.blocks import AdapterInfo, Plan, make_plan
from raymap.study.file import build_study

SEEDS = 10
ADAPTERS = 45


def plan_of(images: int, batch: int) -> Plan:
    """Return a plan of at least `images` images by the base and 45 adapters, `batch` images per batch."""
    prompts = -(-images // (SEEDS * (1 + ADAPTERS)))
    raw = {
        "name": "invented",
        "seeds": SEEDS,
        "batch_size": batch,
        "prompts": {"scenes": [f"place {k}" for k in range(prompts)]},
        "adapters": ["none"],
    }
    adapters = tuple(AdapterInfo(f"adapter-{k}", "lora", f"subject-{k}", "object", "0" * 64) for k in range(ADAPTERS))
    return make_plan(build_study(raw, "invented", Path()), adapters, {})
