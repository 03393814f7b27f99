"""A run's own adapters: which of them are still to be trained, and their training."""

from __future__ import annotations

import time
from typing import Any

from raymap.display.progress import Progress
from raymap.driver.prepare import Prepared
from raymap.personalize.orders import AdapterOrder, is_trained, together
from raymap.store.folder import RunFolder


def untrained_orders(prepared: Prepared, folder: RunFolder) -> tuple[AdapterOrder, ...]:
    """Return the orders whose adapters are not in the run folder.

    Raises:
        InputError: an adapter there was trained with other settings.
    """
    return tuple(order for order in prepared.orders if not is_trained(folder.adapter(order.name), order))


def train_missing(
    prepared: Prepared, untrained: tuple[AdapterOrder, ...], folder: RunFolder, progress: Progress
) -> float:
    """Train every group of orders that lacks an adapter, and return the seconds that it took.

    Groups are retrained whole, so that an interrupted run ends with the same bits.
    """
    from raymap.cluster import launch, training

    start = time.perf_counter()
    resources = prepared.study.resources
    groups = tuple(g for g in together(prepared.orders, resources.train_together) if set(g) & set(untrained))
    steps = sum(order.steps for group in groups for order in group)
    progress.phase(f"training {len(untrained)} adapters", steps, "steps")
    base, study = prepared.base.pinned, prepared.study

    def trainer() -> Any:
        return launch.start_trainer(base, resources, study.dtype, study.weights)

    training.train_all(groups, folder, trainer, resources.workers.max, progress)
    return round(time.perf_counter() - start, 1)
