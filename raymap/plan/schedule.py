"""Which worker draws what next, and how many workers are useful: pure decisions, without Ray or tensors."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from raymap.plan.blocks import Plan, Unit
from raymap.study.adapter import BASE

RETRIES = 3
"""How often a unit, or the training of an adapter, is tried again after its worker was lost."""
SLOW = 2.0
"""A worker that takes more than this many times as long as the fastest is slow."""


@dataclass
class _Part:
    """A block, or what is left of it: the names of the models that are still to draw it, the base first."""

    block: int
    names: list[str]


class Schedule:
    """Gives units to workers: a worker keeps its block until all of it is given out, then takes the next.

    Every part of a block starts with its base batch, against which the same worker scores adapted batches. It is drawn,
    or read back if it is already committed. The largest blocks go first. When no block waits, an idle worker takes a
    share of the part that would last longest, among those whose base batch is committed. The share is such that both
    workers finish together, whatever their paces; this keeps all workers busy to the end. A schedule is mutable,
    single-threaded and deterministic.
    """

    def __init__(self, plan: Plan, done: Collection[Unit]) -> None:
        self.failed: set[Unit] = set()
        self._names = (BASE, *(adapter.name for adapter in plan.adapters))
        self._rank = {name: k for k, name in enumerate(self._names)}
        self._losses: dict[Unit, int] = {}
        self._bases = {unit.block for unit in done if unit.is_base}
        parts = [
            _Part(block.index, [name for name in self._names if Unit(block.index, name) not in done])
            for block in plan.blocks
        ]
        self._waiting = sorted((p for p in parts if p.names), key=lambda p: (len(p.names), -p.block))
        self._parts: dict[int, _Part] = {}
        self._seconds: dict[int, tuple[float, int]] = {}
        self._in_vain = math.inf

    def worth(self) -> int:
        """Return how many workers could have work: one for each part, and one more for each divisible part."""
        unfinished = [part for part in self._parts.values() if part.names]
        return len(self._waiting) + len(unfinished) + sum(len(part.names) > 1 for part in unfinished)

    def next_for(self, worker: int) -> Unit | None:
        """Return the worker's next unit, or None while there is nothing for it to do."""
        part = self._parts.get(worker)
        if part is None or not part.names:
            part = self._waiting.pop() if self._waiting else self._share(worker)
            if part is None:
                return None
            self._parts[worker] = part
            if part.names[0] != BASE:
                return Unit.of_base(part.block)
        return Unit(part.block, part.names.pop(0))

    def holds(self, worker: int) -> bool:
        """Return whether a worker has a part from which units are still to be given out."""
        part = self._parts.get(worker)
        return part is not None and bool(part.names)

    def has_base(self, block: int) -> bool:
        """Return whether a block's base batch is committed, so that it can be read back."""
        return block in self._bases

    def finish(self, unit: Unit) -> None:
        """Record a committed unit."""
        if unit.is_base:
            self._bases.add(unit.block)
            self._in_vain = math.inf

    def took(self, worker: int, seconds: float) -> None:
        """Record how long a worker drew and scored one unit."""
        if worker not in self._seconds:
            self._in_vain = math.inf
        total, units = self._seconds.get(worker, (0.0, 0))
        self._seconds[worker] = total + seconds, units + 1

    def depth(self, worker: int, most: int) -> int:
        """Return how many units a worker should have in flight: `most`, or one for a slow worker near the end.

        No other worker can take over what is in flight.
        """
        fastest = min((total / units for total, units in self._seconds.values()), default=math.inf)
        return 1 if not self._waiting and self._pace(worker) > SLOW * fastest else most

    def fail(self, unit: Unit) -> None:
        """Give a unit up for this run; if it is a block's base batch, give up the block's other units too."""
        self.failed.add(unit)
        if unit.is_base and unit.block not in self._bases:
            for part in [*self._parts.values(), *self._waiting]:
                if part.block == unit.block:
                    self.failed.update(Unit(part.block, name) for name in part.names)
                    part.names.clear()
            self._waiting = [part for part in self._waiting if part.names]

    def lose(self, worker: int, in_flight: list[Unit]) -> list[Unit]:
        """Take back what a lost worker had, and return the units that have now been lost too often."""
        given_up = []
        back = self.release(worker)
        self._in_vain = math.inf
        for unit in in_flight:
            self._losses[unit] = self._losses.get(unit, 0) + 1
            if self._losses[unit] > RETRIES:
                given_up.append(unit)
            else:
                back.append(unit)
        waiting: dict[int, list[str]] = {}
        for unit in back:
            waiting.setdefault(unit.block, []).append(unit.adapter)
        for block, names in waiting.items():
            self._waiting.append(_Part(block, sorted(set(names), key=self._rank.__getitem__)))
        for unit in given_up:
            self.fail(unit)
        return given_up

    def release(self, worker: int) -> list[Unit]:
        """Take a worker's part away from it and return the units in it, which no worker has now."""
        part = self._parts.pop(worker, None)
        self._seconds.pop(worker, None)
        return [Unit(part.block, name) for name in part.names] if part else []

    def _pace(self, worker: int) -> float:
        """Return a worker's mean seconds per unit, or all workers' mean while it has finished none."""
        known = [self._seconds[worker]] if worker in self._seconds else self._seconds.values()
        return sum(total for total, _ in known) / max(1, sum(units for _, units in known)) or 1.0

    def _share(self, worker: int) -> _Part | None:
        """Take a share of another worker's part, if both of them then finish sooner than that one would alone.

        The owner has one more unit in flight, and the taker has the base batch to draw first: of n units it takes k
        such that (k + 1) times its pace is (n - k + 1) times the owner's.
        """
        own = self._pace(worker)
        if own >= self._in_vain:
            return None
        ready = [
            (len(part.names), self._pace(owner), part)
            for owner, part in self._parts.items()
            if part.names and part.block in self._bases
        ]
        if ready:
            n, pace, part = max(ready, key=lambda entry: (entry[0] + 1) * entry[1])
            k = min(n, math.ceil(((n + 1) * pace - own) / (pace + own)))
            if k > 0 and (k + 1) * own < (n + 1) * pace:
                share = _Part(part.block, part.names[n - k :])
                del part.names[n - k :]
                return share
        self._in_vain = own
        return None


def workers_wanted(schedule: Schedule, least: int, most: int) -> int:
    """Return how many workers a run should have now: as many as could have work, within the limits; 0 without work."""
    return min(most, max(least, schedule.worth())) if schedule.worth() else 0
