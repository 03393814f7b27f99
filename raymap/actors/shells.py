"""Thin shells of the actors that need torch: their plain classes are loaded in the actor's process, not the driver's.

Each class imports its plain one where it is built, for that reason alone. Ray shows a process under its shell's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from raymap.actors.built import Built
from raymap.actors.roles import WorkerInfo
from raymap.actors.specs import AttentionSpec, GeneratorSpec, ScorerSpec, TablesSpec

if TYPE_CHECKING:
    import numpy as np

    from raymap.actors.batches import Drawn, Scored
    from raymap.drawing.attention.denoise import Compared
    from raymap.personalize.orders import AdapterOrder
    from raymap.personalize.step import Step
    from raymap.plan.blocks import Block
    from raymap.study.adapter import AdapterInfo


class Generator:
    """Shell of `raymap.actors.generator.Generator`."""

    def __init__(self, spec: GeneratorSpec) -> None:
        from raymap.actors import generator

        self._built = Built(lambda: generator.Generator(spec))

    def ready(self, scorer: bool) -> WorkerInfo:
        return self._built.checked().ready(scorer)

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        return self._built.plain.draw(block, adapter)


class Scorer:
    """Shell of `raymap.actors.scorer.Scorer`."""

    def __init__(self, spec: ScorerSpec) -> None:
        from raymap.actors import scorer

        self._built = Built(lambda: scorer.Scorer(spec))

    def ready(self) -> bool:
        return self._built.checked().ready()

    def score_base(self, block: Block, batch: np.ndarray, drawn: Drawn) -> Scored:
        return self._built.plain.score_base(block, batch, drawn)

    def read_base(self, block: Block) -> np.ndarray:
        return self._built.plain.read_base(block)

    def score_adapted(
        self, block: Block, adapter: AdapterInfo, batch: np.ndarray, drawn: Drawn, base: np.ndarray
    ) -> Scored:
        return self._built.plain.score_adapted(block, adapter, batch, drawn, base)


class AttentionMeter:
    """Shell of `raymap.actors.attention.AttentionMeter`."""

    def __init__(self, spec: AttentionSpec) -> None:
        from raymap.actors import attention

        self._built = Built(lambda: attention.AttentionMeter(spec))

    def ready(self, scorer: bool) -> WorkerInfo:
        return self._built.checked().ready(scorer)

    def draw(self, block: Block, adapter: str) -> tuple[Compared | None, Drawn]:
        return self._built.plain.draw(block, adapter)


class AttentionTables:
    """Shell of `raymap.actors.attention.AttentionTables`."""

    def __init__(self, spec: TablesSpec) -> None:
        from raymap.actors import attention

        self._built = Built(lambda: attention.AttentionTables(spec))

    def ready(self) -> bool:
        return self._built.checked().ready()

    def score_base(self, block: Block, batch: None, drawn: Drawn) -> Scored:
        return self._built.plain.score_base(block, batch, drawn)

    def read_base(self, block: Block) -> None:
        self._built.plain.read_base(block)

    def score_adapted(self, block: Block, adapter: AdapterInfo, batch: Compared, drawn: Drawn, base: None) -> Scored:
        return self._built.plain.score_adapted(block, adapter, batch, drawn, base)


class Trainer:
    """Shell of `raymap.actors.trainer.Trainer`."""

    def __init__(self, base: str | Path, threads: int, device: str, dtype: str, weights: str | None) -> None:
        from raymap.actors import trainer

        self._built = Built(lambda: trainer.Trainer(base, threads, device, dtype, weights))

    def ready(self, run: Path) -> bool:
        return self._built.checked().ready(run)

    def train(self, orders: tuple[AdapterOrder, ...], folders: tuple[Path, ...], scratch: Path) -> Iterator[Step]:
        yield from self._built.plain.train(orders, folders, scratch)
