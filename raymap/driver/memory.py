"""How much of a device's memory a prepared study takes while it draws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from raymap.base.memory import Memory, batch_memory, size_of

if TYPE_CHECKING:
    from raymap.driver.prepare import Prepared


def drawing_memory(prepared: Prepared) -> Memory:
    """Return what a worker's device needs to draw a study's batches with all of its adapters resident."""
    study, base = prepared.study, prepared.base
    size = min(study.batch_size, len(study.seeds)) if base.family.one_prompt else study.batch_size
    one = replace(base.memory(prepared.size, study.dtype, study.memory), adapters=_resident(prepared))
    return batch_memory(one, size, base.family.passes(study.sampler.guidance_scale), study.memory)


def _resident(prepared: Prepared) -> int:
    """Return the bytes of all adapters in float32, and of the copies of weights that they write."""
    shapes = prepared.base.skeleton.shapes
    held = sum(order.size(prepared.base.skeleton) for order in prepared.orders)
    held += 4 * sum(found.numbers for found in prepared.brought)
    written = set().union(*(order.touched(prepared.base.skeleton) for order in prepared.orders))
    written |= set().union(*(found.weights for found in prepared.brought))
    beside = prepared.study.memory.beside
    kept = sum(math.prod(shapes[name]) for name in written if not (beside and prepared.base.family.in_denoiser(name)))
    return held + kept * size_of(prepared.study.dtype)
