"""Commits scored units to the run folder, one after another."""

from __future__ import annotations

from raymap.actors.scorer import Scored
from raymap.plan import Unit
from raymap.store.folder import RunFolder


class Reducer:
    """The only writer of scores and ledger. Committing a unit again writes the same bytes."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def ready(self) -> bool:
        return True

    def commit(self, unit: Unit, scored: Scored) -> Unit:
        """Make a unit's rows durable and return the unit."""
        self.folder.commit(unit, scored.table, scored.images)
        return unit
