"""The two roles of a worker's actors, whatever they draw or measure, and what a worker says of itself.

What travels from the one to the other is generic: `BaseBatch` is what was drawn of a block by the base, `AdaptedBatch`
under an adapter. Drawing images sends pixels for both; measuring attention has nothing to send of the base alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from raymap.actors.batches import Drawn, Scored
from raymap.plan.blocks import Block
from raymap.study.adapter import AdapterInfo

BaseBatch = TypeVar("BaseBatch")
AdaptedBatch = TypeVar("AdaptedBatch")
BaseBatch_co = TypeVar("BaseBatch_co", covariant=True)
AdaptedBatch_co = TypeVar("AdaptedBatch_co", covariant=True)
AdaptedBatch_contra = TypeVar("AdaptedBatch_contra", contravariant=True)


@dataclass(frozen=True)
class WorkerInfo:
    """What run.json records of a worker: the device that it computes on, and its threads."""

    device: str
    threads: int


class Draws(Protocol[BaseBatch_co, AdaptedBatch_co]):
    """Draws blocks, by the base and under adapters."""

    def ready(self, scorer: bool) -> WorkerInfo:
        """Return once everything is loaded; `scorer` is the answer of the actor beside it.

        Raises:
            InputError: this node lacks something that the actor needs.
        """
        ...

    def draw(self, block: Block, adapter: str) -> tuple[BaseBatch_co | AdaptedBatch_co, Drawn]:
        """Return what was drawn of a block by the base (`adapter` is "base") or under an adapter, and how."""
        ...


class Scores(Protocol[BaseBatch, AdaptedBatch_contra]):
    """Turns what was drawn into rows."""

    def ready(self) -> bool:
        """Return once everything is loaded.

        Raises:
            InputError: this node lacks something that the actor needs.
        """
        ...

    def score_base(self, block: Block, batch: BaseBatch, drawn: Drawn) -> Scored:
        """Return the rows of a block that the base drew."""
        ...

    def read_base(self, block: Block) -> BaseBatch:
        """Return what the base drew of a block in an earlier session."""
        ...

    def score_adapted(
        self, block: Block, adapter: AdapterInfo, batch: AdaptedBatch_contra, drawn: Drawn, base: BaseBatch
    ) -> Scored:
        """Return the rows of a block under an adapter, beside the base's."""
        ...
