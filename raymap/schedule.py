"""Who draws what next: pure decisions, no Ray, no tensors."""

from __future__ import annotations

from raymap.plan import BASE, Plan, Unit

RETRIES = 3
"""How often a unit is tried again after its worker was lost."""


class Schedule:
    """Hands units to workers: a worker keeps its block until the block is handed out, then takes the next.

    A block starts with its base batch, drawn or (when already committed) read back, because every adapted batch
    is scored against it by the same worker. Mutable, single-threaded, deterministic.
    """

    def __init__(self, plan: Plan, done: set[Unit]) -> None:
        self.plan = plan
        self.done = set(done)
        self.failed: set[Unit] = set()
        self._losses: dict[Unit, int] = {}
        waiting: dict[int, list[Unit]] = {}
        for unit in plan.units:
            if unit not in done:
                waiting.setdefault(unit.block, []).append(unit)
        self._blocks = sorted(waiting.values(), key=lambda units: (-len(units), units[0]))
        self._queue: dict[int, list[Unit]] = {}

    @property
    def waiting(self) -> bool:
        """Whether units are left that no worker holds."""
        return bool(self._blocks)

    def next_for(self, worker: int) -> Unit | None:
        """Return the worker's next unit, or None when nothing is left to hand out."""
        if not self._queue.get(worker):
            if not self._blocks:
                return None
            units = self._blocks.pop(0)
            base = Unit(units[0].block, BASE)
            self._queue[worker] = units if units[0] == base else [base, *units]
        return self._queue[worker].pop(0)

    def finish(self, unit: Unit) -> None:
        """Record a committed unit."""
        self.done.add(unit)

    def fail(self, unit: Unit) -> None:
        """Give a unit up for this run; without its base batch, a block's other units are given up too."""
        self.failed.add(unit)
        if unit.adapter == BASE:
            for queue in self._queue.values():
                self.failed.update(u for u in queue if u.block == unit.block)
                queue[:] = [u for u in queue if u.block != unit.block]

    def lose(self, worker: int, in_flight: list[Unit]) -> list[Unit]:
        """Take back what a lost worker had; return the units that have now been lost too often."""
        back = [*in_flight, *self._queue.pop(worker, [])]
        given_up = []
        for unit in in_flight:
            self._losses[unit] = self._losses.get(unit, 0) + 1
            if self._losses[unit] > RETRIES:
                given_up.append(unit)
                self.failed.add(unit)
        waiting: dict[int, list[Unit]] = {}
        for unit in sorted(set(back), key=self.plan.units.index):
            if unit not in self.done and unit not in self.failed:
                waiting.setdefault(unit.block, []).append(unit)
        self._blocks = [*waiting.values(), *self._blocks]
        return given_up
