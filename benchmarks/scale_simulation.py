"""Simulates a study of a million images on a thousand spot GPUs, with the real schedule.

    python -m benchmarks.scale_simulation [--workers 1000] [--prompts 2000] [--seeds 10] [--batch 20]

The plan and `raymap.plan.schedule.Schedule` are those of a run. Workers, time and losses are simulated, event by event.
A worker starts, loads its base, keeps two units in flight as `raymap.cluster.stream` does, and is lost after an
exponentially distributed time; after a wait another one replaces it. Kinds of GPU differ in speed. A block's base batch
is read back on the kind of GPU that drew it, and drawn again on another kind. Scoring and commits take no time here:
`benchmarks.driver` measures them. The ideal run has the same workers at the same times; they are never idle and draw
nothing twice.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from raymap.plan.blocks import BASE, AdapterInfo, Plan, Unit, make_plan
from raymap.plan.schedule import Schedule, workers_wanted
from raymap.study.file import build_study

DEPTH = 2
KINDS = {"H100": (4.0, 0.3), "A100": (2.0, 0.4), "L4": (0.5, 0.3)}
"""For each kind of GPU: images per second (rounded; SD 1.5, 50 steps) and its share of the workers."""


@dataclass(frozen=True)
class World:
    """What happens to workers, times in seconds.

    `life` is the mean time until a spot worker is lost. `first` and `again` are the shortest and the longest wait for a
    first worker and for its replacement. `load` is the time to load the base, `read` that to read back a base batch.
    """

    workers: int
    life: float = 3600.0
    first: tuple[float, float] = (60.0, 300.0)
    again: tuple[float, float] = (60.0, 300.0)
    load: float = 45.0
    read: float = 0.5
    seed: int = 0


@dataclass
class _Worker:
    """A running worker: its kind of GPU, its units in flight, why each is drawn, and when the first one was begun."""

    kind: str
    rate: float
    up: float
    queue: deque[tuple[Unit, str]] = field(default_factory=deque)
    began: float | None = None


@dataclass
class Outcome:
    """The result of a simulated run, times in seconds.

    `drawn` counts images by the reason for drawing them, `losses` counts workers, and `given_up` counts units.
    """

    images: int
    makespan: float = 0.0
    ideal: float = 0.0
    losses: int = 0
    lost_s: float = 0.0
    idle_s: float = 0.0
    alive_s: float = 0.0
    drawn: dict[str, int] = field(default_factory=lambda: {"needed": 0, "base again": 0, "lost": 0})
    done_at: list[tuple[float, int]] = field(default_factory=list)
    given_up: int = 0
    decided_s: float = 0.0
    decisions: int = 0

    @property
    def efficiency(self) -> float:
        """The ideal run's time divided by this run's."""
        return self.ideal / self.makespan

    def when(self, share: float) -> float:
        """Return the time at which a share of the images was committed."""
        total = 0
        for at, images in self.done_at:
            total += images
            if total >= share * self.images:
                return at
        return self.makespan


def planned(prompts: int, seeds: int, batch: int, subjects: int = 15, methods: int = 3) -> Plan:
    """Return the plan of `subjects` times `methods` adapters and one identity control per method."""
    raw = {
        "name": "scale",
        "seeds": seeds,
        "batch_size": batch,
        "prompts": {"scenes": [f"place {k}" for k in range(prompts)]},
        "adapters": ["none"],
    }
    names = [f"s{s}-m{m}" for s in range(subjects) for m in range(methods)] + [f"identity-m{m}" for m in range(methods)]
    adapters = tuple(AdapterInfo(name, "lora", name, "object", "0" * 64) for name in names)
    return make_plan(build_study(raw, "scale", Path()), adapters, {})


class Simulation:
    """Runs a plan's schedule on simulated workers."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.plan, self.world = plan, world
        self.schedule = Schedule(plan, set())
        self.outcome = Outcome(plan.images(set(plan.units)))
        self._random = random.Random(world.seed)
        self._events: list[tuple[float, int, str, int]] = []
        self._order = itertools.count()
        self._workers: dict[int, _Worker] = {}
        self._idle: dict[int, float] = {}
        self._devices: dict[int, str] = {}
        self._requested = 0
        self._lives: list[tuple[float, float, float]] = []

    def run(self) -> Outcome:
        """Simulate until every unit is committed or given up."""
        for _ in range(workers_wanted(self.schedule, 1, self.world.workers)):
            self._request(0.0, self.world.first)
        now = 0.0
        while self._busy():
            now, _, what, number = heapq.heappop(self._events)
            if what == "up":
                self._start(now, number)
            elif number in self._workers:
                (self._finish if what == "done" else self._lose)(now, number)
        self.outcome.makespan = now
        for number in list(self._workers):
            self._leave(now, number)
        self.outcome.ideal = _ideal(self._lives, self.outcome.images)
        return self.outcome

    def _busy(self) -> bool:
        return any(worker.queue for worker in self._workers.values()) or bool(self.schedule.worth())

    def _at(self, when: float, what: str, number: int) -> None:
        heapq.heappush(self._events, (when, next(self._order), what, number))

    def _request(self, now: float, wait: tuple[float, float]) -> None:
        self._at(now + self._random.uniform(*wait) + self.world.load, "up", self._requested)
        self._requested += 1

    def _start(self, now: float, number: int) -> None:
        shares = [share for _, share in KINDS.values()]
        kind = self._random.choices(list(KINDS), shares)[0]
        self._workers[number] = _Worker(kind, KINDS[kind][0], now)
        self._at(now + self.world.life * self._random.expovariate(1.0), "lost", number)
        self._fill(now, number)

    def _fill(self, now: float, number: int) -> None:
        """Fill a worker's queue and begin its first unit, if it is not at work."""
        worker = self._workers[number]
        while len(worker.queue) < self.schedule.depth(number, DEPTH):
            start = time.perf_counter()
            unit = self.schedule.next_for(number)
            self.outcome.decided_s += time.perf_counter() - start
            self.outcome.decisions += 1
            if unit is None:
                break
            again = unit.adapter == BASE and self.schedule.has_base(unit.block)
            same = self._devices.get(unit.block) == worker.kind
            worker.queue.append((unit, ("read" if same else "base again") if again else "needed"))
        if worker.began is None and worker.queue:
            self.outcome.idle_s += now - self._idle.pop(number, now)
            worker.began = now
            unit, why = worker.queue[0]
            seconds = self.world.read if why == "read" else self._images(unit) / worker.rate
            self._at(now + seconds, "done", number)
        elif not worker.queue:
            self._idle.setdefault(number, now)

    def _finish(self, now: float, number: int) -> None:
        worker = self._workers[number]
        unit, why = worker.queue.popleft()
        worker.began = None
        if why != "read":
            self.outcome.drawn[why] += self._images(unit)
        if why == "needed":
            self.schedule.finish(unit)
            self.schedule.took(number, self._images(unit) / worker.rate)
            self.outcome.done_at.append((now, self._images(unit)))
            if unit.adapter == BASE:
                self._devices[unit.block] = worker.kind
        self._fill(now, number)
        for other in list(self._idle):  # they may be waiting for a base batch that is now committed
            if unit.adapter != BASE and not self.schedule.worth():
                break
            self._fill(now, other)
            if other in self._idle:
                break

    def _lose(self, now: float, number: int) -> None:
        worker = self._workers[number]
        self.outcome.losses += 1
        if worker.began is not None:
            self.outcome.lost_s += now - worker.began
            self.outcome.drawn["lost"] += round(
                min((now - worker.began) * worker.rate, self._images(worker.queue[0][0]))
            )
        lost = [unit for unit, why in worker.queue if why == "needed"]
        self.outcome.given_up += len(self.schedule.lose(number, lost))
        self._leave(now, number)
        self._request(now, self.world.again)
        for other in list(self._idle):
            self._fill(now, other)

    def _leave(self, now: float, number: int) -> None:
        worker = self._workers.pop(number)
        self.outcome.idle_s += now - self._idle.pop(number, now)
        self.outcome.alive_s += now - worker.up
        self._lives.append((worker.up, now, worker.rate))

    def _images(self, unit: Unit) -> int:
        return len(self.plan.blocks[unit.block].items)


def _ideal(lives: list[tuple[float, float, float]], images: int) -> float:
    """Return when workers with these (start, end, rate), never idle, would have drawn `images` images."""
    changes = sorted([(up, rate) for up, _, rate in lives] + [(until, -rate) for _, until, rate in lives])
    now, rate, left = 0.0, 0.0, float(images)
    for at, change in changes:
        if rate > 0 and left <= rate * (at - now):
            break
        left -= rate * (at - now)
        now, rate = at, rate + change
    return now + left / rate if rate > 0 else now


def main() -> None:
    """Print makespan, efficiency, the tail, and the cost of losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1000, help="number of workers")
    parser.add_argument("--prompts", type=int, default=2000, help="number of prompts")
    parser.add_argument("--seeds", type=int, default=10, help="seeds per prompt")
    parser.add_argument("--batch", type=int, default=20, help="images per batch")
    parser.add_argument("--repeat", type=int, default=1, help="number of random seeds")
    args = parser.parse_args()
    plan = planned(args.prompts, args.seeds, args.batch)
    images = plan.images(set(plan.units))
    console = Console(width=120)
    console.print(
        f"{args.prompts} prompts x {args.seeds} seeds x {1 + len(plan.adapters)} models = {images} images in "
        f"{len(plan.blocks)} blocks of up to {args.batch}; {args.workers} workers: "
        + ", ".join(f"{share:.0%} {kind} ({rate:g} images/s)" for kind, (rate, share) in KINDS.items()),
        highlight=False,
    )
    table = Table(title="Spot workers are lost after a mean life and replaced after 1 to 5 minutes")
    for name in (
        "mean life",
        "makespan",
        "ideal",
        "efficiency",
        "last 5 %",
        "idle",
        "losses",
        "drawn twice",
        "μs per decision",
    ):
        table.add_column(name, justify="right")
    for life, seed in itertools.product((float("inf"), 2 * 3600.0, 1800.0), range(args.repeat)):
        outcome = Simulation(plan, World(args.workers, life=life, seed=seed)).run()
        twice = outcome.drawn["base again"] + outcome.drawn["lost"] + outcome.drawn["needed"] - outcome.images
        table.add_row(
            "unlimited" if life == float("inf") else f"{life / 60:.0f} min",
            f"{outcome.makespan:.0f} s",
            f"{outcome.ideal:.0f} s",
            f"{outcome.efficiency:.1%}",
            f"{outcome.makespan - outcome.when(0.95):.0f} s",
            f"{outcome.idle_s / outcome.alive_s:.1%}",
            str(outcome.losses),
            f"{twice / outcome.images:.2%}",
            f"{outcome.decided_s / outcome.decisions * 1e6:.0f}",
        )
        if outcome.given_up:
            console.print(f"{outcome.given_up} units were given up", style="red")
    console.print(table)


if __name__ == "__main__":
    main()
