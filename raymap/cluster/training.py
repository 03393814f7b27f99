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
from raymap.schedule import RETRIES, WORKER_STARTS
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
    starting: dict[Any, Any] = {}  # by the reference that resolves once the trainer is up: it may never be
    running: dict[Any, _Training] = {}
    failed: list[str] = []
    failed_starts = 0

    def staff() -> None:
        while len(starting) + len(running) < min(workers, len(waiting) + len(running)):
            trainer = start()
            starting[trainer.ready.remote()] = trainer

    def give_work(trainer: Any) -> None:
        if not waiting:
            ray.kill(trainer)
            return
        training = waiting.pop(0)
        training.trainer = trainer
        folders = tuple(folder.adapter(order.name) for order in training.orders)
        scratch = folder.training(training.orders[0].name)
        training.steps = trainer.train.options(num_returns="streaming").remote(training.orders, folders, scratch)
        running[training.steps] = training
        progress.now(f"training {training.name}")

    while waiting or running:
        staff()
        ready, _ = ray.wait([*running, *starting], num_returns=1, timeout=TICK_S)
        progress.tick()
        for ref in ready:
            if ref in starting:
                trainer = starting.pop(ref)
                try:
                    ray.get(ref)
                except RayTaskError as error:
                    raise IncompleteRunError(f"a trainer cannot start: {cause(error)}") from error
                except RayError as error:
                    failed_starts += 1
                    if failed_starts > WORKER_STARTS:
                        raise IncompleteRunError(f"trainers do not start: {cause(error)}") from error
                else:
                    failed_starts = 0
                    give_work(trainer)
                continue
            training = running.pop(ref)
            try:
                step = ray.get(next(ref))
            except StopIteration:
                progress.now(f"trained {training.name}")
                give_work(training.trainer)
            except RayTaskError as error:
                failed.append(f"{training.name} ({cause(error)})")
                give_work(training.trainer)
            except RayError as error:
                training.losses += 1
                if training.losses > RETRIES:
                    failed.append(f"{training.name} ({cause(error)})")
                else:
                    progress.note(f"a trainer was lost; {training.name} goes on from its checkpoint")
                    waiting.insert(0, training)
            else:
                progress.trained(max(0, step.done - training.done) * len(training.orders))
                training.done = max(training.done, step.done)
                running[ref] = training
    for trainer in starting.values():
        ray.kill(trainer)
    if failed:
        raise IncompleteRunError(f"training failed: {'; '.join(failed)}")
