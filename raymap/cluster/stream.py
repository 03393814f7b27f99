"""Streams a plan's units through workers and the reducer, with as many workers as are available and useful.

The driver holds references and counts, never pixels or rows. Each worker has at most `DEPTH` units in flight, so shared
memory holds at most DEPTH + 1 batches per worker.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from raymap.actors.roles import WorkerInfo
from raymap.cluster.failures import Decision, Work, decide
from raymap.cluster.launch import Starts, Worker, cause, leaving_nodes, raised_by
from raymap.cluster.metrics import Metrics
from raymap.display.progress import Progress
from raymap.errors import IncompleteRunError
from raymap.plan.blocks import Plan, Unit
from raymap.plan.schedule import RETRIES, Schedule, workers_wanted
from raymap.store.folder import RunFolder
from raymap.study.model import Workers

DEPTH = 2
TICK_S = 0.5
LOOK_S = 2.0
"""Ray is asked this often, in seconds, which nodes are about to leave."""


@dataclass
class Stream:
    """Drives a plan's units through workers until none is left.

    `devices` gives, for each block whose base batch is committed, the device that drew it. `seen` lists the workers
    that started; `seconds` adds up their work by stage.
    """

    plan: Plan
    schedule: Schedule
    folder: RunFolder
    reducer: Any
    start: Callable[[], Worker]
    progress: Progress
    devices: dict[int, str] = field(default_factory=dict)
    workers: dict[int, Worker] = field(default_factory=dict)
    seen: list[WorkerInfo] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._adapters = {a.name: a for a in self.plan.adapters}
        self._in_flight: dict[Any, tuple[int, Unit]] = {}
        self._load: Counter[int] = Counter()
        self._bases: dict[int, Any] = {}
        self._next_worker = 0
        self._tried: set[Unit] = set()
        self._broken = 0
        self._starts = Starts("worker")
        self._looked = time.monotonic()
        self._metrics = Metrics()

    def run(self, workers: Workers) -> None:
        """Draw, score and commit everything that is waiting.

        Raises:
            IncompleteRunError: workers cannot be started, or break one after another.
            StorageError: the run folder cannot be written.
        """
        try:
            while self.schedule.worth() or self._in_flight:
                self._staff(workers)
                for number in list(self.workers):
                    self._fill(number)
                self._wait()
        finally:
            for number in list(self.workers):
                self._dismiss(number)

    def _staff(self, workers: Workers) -> None:
        """Ask for workers while there is work for them, and dismiss those that have none or must leave."""
        wanted = workers_wanted(self.schedule, workers.min, workers.max)
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self._clear(leaving_nodes())
        staying = [n for n, w in self.workers.items() if not w.leaving]
        for _ in range(wanted - len(staying)):
            self.workers[self._next_worker] = self.start()
            self._next_worker += 1
        idle = [n for n in staying if not self._load[n] and not self.schedule.holds(n)]
        for number in sorted(idle, key=lambda n: self.workers[n].info is not None)[: max(0, len(staying) - wanted)]:
            self.schedule.lose(number, [])
            self._dismiss(number)
        for number in [n for n, w in self.workers.items() if w.leaving and not self._load[n]]:
            self._dismiss(number)
        up = sum(w.info is not None for w in self.workers.values())
        self.progress.workers(up, len(self.workers))
        self._metrics.workers(up, len(self.workers))

    def _clear(self, leaving: set[str]) -> None:
        """Give no more work to workers on nodes that are about to leave; what they have not begun goes to others."""
        for number, worker in self.workers.items():
            if leaving and not worker.leaving and worker.node in leaving:
                worker.leaving = True
                self.schedule.lose(number, [])
                self.progress.note("a node is about to leave; its worker finishes what it is drawing")

    def _fill(self, number: int) -> None:
        """Keep a worker that is ready busy with up to DEPTH units."""
        worker = self.workers[number]
        if worker.info is None or worker.leaving:
            return
        while self._load[number] < self.schedule.depth(number, DEPTH):
            unit = self.schedule.next_for(number)
            if unit is None:
                return
            self._submit(number, worker, worker.info.device, unit)

    def _submit(self, number: int, worker: Worker, device: str, unit: Unit) -> None:
        block = self.plan.blocks[unit.block]
        if unit.is_base and self.schedule.has_base(unit.block) and self.devices.get(unit.block) == device:
            self._bases[number] = worker.scorer.read_base.remote(block)
            return
        pixels, drawn = worker.generator.draw.options(num_returns=2).remote(block, unit.adapter)
        if unit.is_base:
            self._bases[number] = pixels
            if self.schedule.has_base(unit.block):
                return  # committed from another device: drawn again, so that pairs are of one device, but not scored
            scored = worker.scorer.score_base.remote(block, pixels, drawn)
        else:
            adapter = self._adapters[unit.adapter]
            scored = worker.scorer.score_adapted.remote(block, adapter, pixels, drawn, self._bases[number])
        self._in_flight[self.reducer.commit.remote(unit, scored)] = (number, unit)
        self._load[number] += 1
        self.progress.now(f"block {unit.block + 1} of {len(self.plan.blocks)}, {unit.adapter}")

    def _wait(self) -> None:
        """Wait for a commit or for a worker to start, and handle it."""
        starting = [w.ready for w in self.workers.values() if w.info is None]
        pending = [*self._in_flight, *starting]
        ready, _ = ray.wait(pending, num_returns=1, timeout=TICK_S) if pending else ([], [])
        self.progress.tick()
        for ref in ready:
            if ref in self._in_flight:
                self._settle(ref)
            elif any(worker.ready == ref for worker in self.workers.values()):
                self._welcome(ref)

    def _welcome(self, ref: Any) -> None:
        number, worker = next((n, w) for n, w in self.workers.items() if w.ready == ref)
        worker.info = self._starts.answer(ref)
        if worker.info is None:
            self._dismiss(number)
        else:
            self.seen.append(worker.info)

    def _settle(self, ref: Any) -> None:
        number, unit = self._in_flight.pop(ref)
        self._load[number] -= 1
        try:
            device, seconds = ray.get(ref)
        except RayError as error:
            self._failed(number, unit, error)
            return
        self._broken = 0
        self.schedule.finish(unit)
        self.schedule.took(number, sum(seconds.values()))
        if unit.is_base:
            self.devices[unit.block] = device
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        images = len(self.plan.blocks[unit.block].items)
        self.progress.drawn(images)
        self._metrics.committed(images, seconds, len(self._in_flight))

    def _failed(self, number: int, unit: Unit, error: RayError) -> None:
        raised = raised_by(error)
        match decide(Work.BATCH, raised):
            case Decision.GIVE_UP:
                self._give_up(unit, cause(error))
            case Decision.RETRY_ELSEWHERE if raised is None:
                self._lose(number, (unit,))
            case Decision.RETRY_ELSEWHERE:
                self._broke(number, unit, cause(error))
            case Decision.END_RUN:
                raise raised or error from error

    def _broke(self, number: int, unit: Unit, problem: str) -> None:
        """Replace a worker that raised an error of no known kind; another worker tries its batch once more.

        Raises:
            IncompleteRunError: more such errors came in a row, with no batch committed between them, than one bad
                adapter can cause: all workers may meet it at the same time, each of them twice.
        """
        self._broken += 1
        if self._broken > RETRIES * len(self.workers):
            raise IncompleteRunError(f"workers break one after another: {problem}")
        again = unit in self._tried
        self._tried.add(unit)
        self._lose(number, () if again else (unit,))
        if again:
            self._give_up(unit, problem)

    def _give_up(self, unit: Unit, problem: str) -> None:
        self.folder.record_failure(unit, problem)
        self.schedule.fail(unit)
        self._metrics.failed()
        self.progress.note(f"failed: block {unit.block + 1} under {unit.adapter}: {problem}")

    def _lose(self, number: int, units: Sequence[Unit]) -> None:
        """Return these units, and all that a worker had in flight, to the schedule; another takes its place."""
        lost = [u for n, u in self._in_flight.values() if n == number]
        self._in_flight = {r: (n, u) for r, (n, u) in self._in_flight.items() if n != number}
        for given_up in self.schedule.lose(number, [*units, *lost]):
            self._give_up(given_up, "its worker was lost again and again")
        if number in self.workers:
            self._dismiss(number)
            self.progress.note("a worker was lost; another takes its place")

    def _dismiss(self, number: int) -> None:
        self.workers.pop(number).stop()
        self._bases.pop(number, None)
        del self._load[number]
