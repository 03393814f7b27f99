"""Streams work through the actors: orders to trainers, units to generators, scorers and the reducer.

The driver holds references and counts, never pixels or rows. At most `DEPTH` units a worker are in flight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from raymap.cluster.launch import Worker
from raymap.errors import IncompleteRunError
from raymap.personalize.orders import AdapterOrder
from raymap.plan import BASE, Plan, Unit
from raymap.progress import Progress
from raymap.schedule import RETRIES, Schedule
from raymap.store.folder import RunFolder

DEPTH = 2
TICK_S = 0.5
WORKER_STARTS = 8
"""How many worker starts may fail in a row before the run ends as incomplete."""


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
                failed.append(f"{training.name} ({_cause(error)})")
            except RayError as error:
                idle.append(start())
                training.losses += 1
                if training.losses > RETRIES:
                    failed.append(f"{training.name} ({_cause(error)})")
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


@dataclass
class Stream:
    """Drives a plan's units through workers until none is left."""

    plan: Plan
    schedule: Schedule
    folder: RunFolder
    reducer: Any
    start: Callable[[], Worker]
    progress: Progress
    workers: dict[int, Worker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._adapters = {a.name: a for a in self.plan.adapters}
        self._in_flight: dict[Any, tuple[int, Unit]] = {}
        self._bases: dict[int, Any] = {}
        self._next_worker = 0
        self._failed_starts = 0

    def run(self, workers: int) -> None:
        """Draw, score and commit everything that is waiting.

        Raises:
            IncompleteRunError: when workers cannot be started.
        """
        for _ in range(workers):
            self._add_worker()
        while True:
            for number in list(self.workers):
                self._fill(number)
            waiting = [w.ready for w in self.workers.values() if w.info is None]
            if not self._in_flight and (not waiting or not self.schedule.waiting):
                break
            ready, _ = ray.wait([*self._in_flight, *waiting], num_returns=1, timeout=TICK_S)
            self.progress.tick()
            for ref in ready:
                if ref in self._in_flight:
                    self._settle(ref)
                else:
                    self._welcome(ref)

    def _add_worker(self) -> None:
        self.workers[self._next_worker] = self.start()
        self._next_worker += 1

    def _welcome(self, ref: Any) -> None:
        number, worker = next((n, w) for n, w in self.workers.items() if w.ready == ref)
        try:
            worker.info = ray.get(ref)
        except RayTaskError as error:
            raise IncompleteRunError(f"a worker cannot start: {_cause(error)}") from error
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts > WORKER_STARTS:
                raise IncompleteRunError(f"workers do not start: {_cause(error)}") from error
            self._replace(number)
        else:
            self._failed_starts = 0
            self.progress.workers(sum(w.info is not None for w in self.workers.values()))

    def _fill(self, number: int) -> None:
        """Keep a worker that is ready busy with up to DEPTH units."""
        worker = self.workers[number]
        while worker.info is not None and sum(n == number for n, _ in self._in_flight.values()) < DEPTH:
            unit = self.schedule.next_for(number)
            if unit is None:
                return
            self._submit(number, worker, unit)

    def _submit(self, number: int, worker: Worker, unit: Unit) -> None:
        block = self.plan.blocks[unit.block]
        if unit.adapter == BASE and unit in self.schedule.done:
            self._bases[number] = worker.scorer.read_base.remote(block)
            return
        pixels, unchanged = worker.generator.draw.options(num_returns=2).remote(block, unit.adapter)
        if unit.adapter == BASE:
            self._bases[number] = pixels
            scored = worker.scorer.score_base.remote(block, pixels)
        else:
            device = (worker.info or {})["device"]
            adapter = self._adapters[unit.adapter]
            scored = worker.scorer.score_adapted.remote(block, adapter, pixels, unchanged, self._bases[number], device)
        self._in_flight[self.reducer.commit.remote(unit, scored)] = (number, unit)
        self.progress.now(f"block {unit.block + 1} of {len(self.plan.blocks)}, {unit.adapter}")

    def _settle(self, ref: Any) -> None:
        if ref not in self._in_flight:
            return
        number, unit = self._in_flight.pop(ref)
        try:
            ray.get(ref)
        except RayTaskError as error:
            self._fail(unit, _cause(error))
        except RayError:
            lost = [u for n, u in self._in_flight.values() if n == number]
            self._in_flight = {r: (n, u) for r, (n, u) in self._in_flight.items() if n != number}
            for given_up in self.schedule.lose(number, [unit, *lost]):
                self._fail(given_up, "its worker was lost again and again")
            self._replace(number)
        else:
            self.schedule.finish(unit)
            self.progress.drawn(len(self.plan.blocks[unit.block].items))

    def _fail(self, unit: Unit, problem: str) -> None:
        self.folder.record_failure(unit, problem)
        self.schedule.fail(unit)
        self.progress.note(f"failed: block {unit.block + 1} under {unit.adapter}: {problem}")

    def _replace(self, number: int) -> None:
        self.workers.pop(number).stop()
        self._bases.pop(number, None)
        self.progress.note("a worker was lost; starting another")
        self._add_worker()


def _cause(error: RayError) -> str:
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split())[-400:]
