"""Streams a study's trainings through trainers: a lost one is replaced, a failed one leaves the others running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from raymap.cluster.launch import cause
from raymap.errors import IncompleteRunError
from raymap.personalize.orders import AdapterOrder
from raymap.progress import Progress
from raymap.schedule import RETRIES
from raymap.store.folder import RunFolder

TICK_S = 0.5


@dataclass
class _Training:
    """A group of orders at a trainer: its progress stream, steps done, trainers it has lost."""

    orders: tuple[AdapterOrder, ...]
    trainer: Any = None
    steps: Any = None
    done: int = 0
    losses: int = 0

    @property
    def name(self) -> str:
        return (
            self.orders[0].name if len(self.orders) == 1 else f"{self.orders[0].name} and {len(self.orders) - 1} more"
        )


def train_all(
    groups: tuple[tuple[AdapterOrder, ...], ...],
    folder: RunFolder,
    start: Callable[[], Any],
    workers: int,
    progress: Progress,
) -> None:
    """Train all groups, as many at once as there are workers; progress counts optimizer steps of each adapter.

    A group whose trainer is lost goes on from its checkpoint at another one.

    Raises:
        IncompleteRunError: when a training failed; all others are finished first.
    """
    waiting = [_Training(group) for group in groups]
    idle = [start() for _ in range(min(workers, len(waiting)))]
    running: dict[Any, _Training] = {}
    failed = []
    while waiting or running:
        while waiting and idle:
            training = waiting.pop(0)
            training.trainer = idle.pop()
            folders = tuple(folder.adapter(order.name) for order in training.orders)
            scratch = folder.training(training.orders[0].name)
            method = training.trainer.train.options(num_returns="streaming")
            training.steps = method.remote(training.orders, folders, scratch)
            running[training.steps] = training
            progress.now(f"training {training.name}")
        ready, _ = ray.wait(list(running), num_returns=1, timeout=TICK_S)
        progress.tick()
        for steps in ready:
            training = running.pop(steps)
            try:
                step = ray.get(next(steps))
            except StopIteration:
                idle.append(training.trainer)
                progress.now(f"trained {training.name}")
            except RayTaskError as error:
                idle.append(training.trainer)
                failed.append(f"{training.name} ({cause(error)})")
            except RayError as error:
                idle.append(start())
                training.losses += 1
                if training.losses > RETRIES:
                    failed.append(f"{training.name} ({cause(error)})")
                else:
                    progress.note(f"a trainer was lost; {training.name} goes on from its checkpoint")
                    waiting.insert(0, training)
            else:
                progress.trained(max(0, step.done - training.done) * len(training.orders))
                training.done = max(training.done, step.done)
                running[steps] = training
    for trainer in idle:
        ray.kill(trainer)
    if failed:
        raise IncompleteRunError(f"training failed: {'; '.join(failed)}")
