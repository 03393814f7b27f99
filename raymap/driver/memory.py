"""How much of a device's memory a study takes while it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raymap.adapters.brought import Found
from raymap.base.memory import Memory, batch_memory, size_of
from raymap.base.model import Base
from raymap.personalize.orders import AdapterOrder
from raymap.study.model import Study


@dataclass(frozen=True)
class Resident:
    """What workers hold of a study: its base, the adapters that it orders, and those that it brings along."""

    base: Base
    orders: Sequence[AdapterOrder]
    brought: Sequence[Found]

    def memory(self, study: Study) -> Memory:
        """Return what a worker's device needs to draw a study's batches with all of its adapters resident."""
        family = self.base.family
        batch = min(study.batch_size, len(study.seeds)) if family.one_prompt else study.batch_size
        one = self.base.memory(image_size(study, self.base), study.dtype, study.memory)
        passes = family.passes(study.sampler.guidance_scale)
        return batch_memory(replace(one, adapters=self._adapters(study)), batch, passes, study.memory)

    def needed(self, study: Study) -> int:
        """Return the bytes of it that are on the device at once at most."""
        return self.memory(study).needed(study.memory.offload)

    def _adapters(self, study: Study) -> int:
        """Return the bytes of all adapters in float32, and of the copies of weights that they write."""
        skeleton = self.base.skeleton
        held = sum(order.size(skeleton) for order in self.orders) + 4 * sum(found.numbers for found in self.brought)
        written = set().union(*(order.touched(skeleton) for order in self.orders))
        written |= set().union(*(found.weights for found in self.brought))
        beside = study.memory.beside
        kept = [name for name in written if not (beside and self.base.family.in_denoiser(name))]
        return held + size_of(study.dtype) * sum(math.prod(skeleton.shapes[name]) for name in kept)


def image_size(study: Study, base: Base) -> tuple[int, int]:
    """Return the height and width in pixels of a study's images."""
    height, width = study.sampler.height, study.sampler.width
    return base.size if height is None or width is None else (height, width)
