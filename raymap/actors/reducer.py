"""Commits scored units to the run folder, one at a time."""

from __future__ import annotations

from raymap.actors.batches import Scored
from raymap.plan.blocks import Unit
from raymap.store.folder import RunFolder


class Reducer:
    """The only writer of scores and ledger; committing a unit again writes the same bytes."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def ready(self) -> bool:
        return True

    def commit(self, unit: Unit, scored: Scored) -> tuple[str, dict[str, float]]:
        """Make a unit's rows durable; return the device that drew it and the seconds of each stage."""
        self.folder.commit(unit, scored.table, scored.features, scored.images, scored.device, scored.judged)
        return scored.device, scored.seconds
