"""Thin shells of the actors that need torch: their plain classes are loaded in the actor's process, not the driver's.

Each class imports its plain one where it is built, for that reason alone. Ray shows a process under its shell's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymap.actors.specs import AttentionSpec, GeneratorSpec, ScorerSpec, TablesSpec

if TYPE_CHECKING:
    import numpy as np

    from raymap.actors.batches import Drawn, Scored
    from raymap.drawing.attention.denoise import Compared
    from raymap.personalize.orders import AdapterOrder
    from raymap.personalize.step import Step
    from raymap.plan.blocks import AdapterInfo, Block


class Generator:
    """Shell of `raymap.actors.generator.Generator`."""

    def __init__(self, spec: GeneratorSpec) -> None:
        from raymap.actors import generator

        self._plain = generator.Generator(spec)

    def ready(self, scorer: bool) -> dict[str, Any]:
        return self._plain.ready(scorer)

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        return self._plain.draw(block, adapter)


class Scorer:
    """Shell of `raymap.actors.scorer.Scorer`."""

    def __init__(self, spec: ScorerSpec) -> None:
        from raymap.actors import scorer

        self._plain = scorer.Scorer(spec)

    def ready(self) -> bool:
        return self._plain.ready()

    def score_base(self, block: Block, pixels: np.ndarray, drawn: Drawn) -> Scored:
        return self._plain.score_base(block, pixels, drawn)

    def read_base(self, block: Block) -> np.ndarray:
        return self._plain.read_base(block)

    def score_adapted(
        self, block: Block, adapter: AdapterInfo, pixels: np.ndarray, drawn: Drawn, base: np.ndarray
    ) -> Scored:
        return self._plain.score_adapted(block, adapter, pixels, drawn, base)


class AttentionMeter:
    """Shell of `raymap.actors.attention.AttentionMeter`."""

    def __init__(self, spec: AttentionSpec) -> None:
        from raymap.actors import attention

        self._plain = attention.AttentionMeter(spec)

    def ready(self, tables: bool) -> dict[str, Any]:
        return self._plain.ready(tables)

    def draw(self, block: Block, adapter: str) -> tuple[Compared | None, Drawn]:
        return self._plain.draw(block, adapter)


class AttentionTables:
    """Shell of `raymap.actors.attention.AttentionTables`."""

    def __init__(self, spec: TablesSpec) -> None:
        from raymap.actors import attention

        self._plain = attention.AttentionTables(spec)

    def ready(self) -> bool:
        return self._plain.ready()

    def score_base(self, block: Block, compared: None, drawn: Drawn) -> Scored:
        return self._plain.score_base(block, compared, drawn)

    def read_base(self, block: Block) -> None:
        self._plain.read_base(block)

    def score_adapted(self, block: Block, adapter: AdapterInfo, compared: Compared, drawn: Drawn, base: None) -> Scored:
        return self._plain.score_adapted(block, adapter, compared, drawn, base)


class Trainer:
    """Shell of `raymap.actors.trainer.Trainer`."""

    def __init__(self, base: str | Path, threads: int, device: str) -> None:
        from raymap.actors import trainer

        self._plain = trainer.Trainer(base, threads, device)

    def ready(self, run: Path) -> bool:
        return self._plain.ready(run)

    def train(self, orders: tuple[AdapterOrder, ...], folders: tuple[Path, ...], scratch: Path) -> Iterator[Step]:
        yield from self._plain.train(orders, folders, scratch)
