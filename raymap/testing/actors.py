"""Stand-ins for generators and scorers that do no arithmetic.

Every actor process imports this module, which therefore imports nothing slow.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raymap.actors.batches import Drawn, Scored
from raymap.actors.built import Built
from raymap.actors.roles import WorkerInfo
from raymap.plan.blocks import Block
from raymap.store.schema import NOISE, SCORES, stamped
from raymap.study.adapter import AdapterInfo

PAGE = 4096
NO_DEVICE = WorkerInfo(device="none", threads=1)


def black(block: Block, side: int) -> tuple[np.ndarray, Drawn]:
    """Return a block of black images, uint8 (N, side, side, 3), as if a generator had drawn them in no time."""
    n = len(block.items)
    return np.zeros((n, side, side, 3), np.uint8), Drawn((True,) * n, NO_DEVICE.device, {"draw_s": 0.0})


class StubGenerator:
    """A generator that starts, or raises the given error while it starts."""

    def __init__(self, error: Exception | None) -> None:
        def build() -> WorkerInfo:
            if error is not None:
                raise error
            return NO_DEVICE

        self._built = Built(build)

    def ready(self, scorer: bool) -> WorkerInfo:
        return self._built.checked()

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        return black(block, side=1)


class StubScorer:
    """A scorer whose `ready` returns, raises the given error, or kills its process where `error` is a text."""

    def __init__(self, error: Exception | str | None) -> None:
        self.error = error

    def ready(self) -> bool:
        if isinstance(self.error, str):
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.error is not None:
            raise self.error
        return True

    def score_base(self, block: Block, batch: np.ndarray, drawn: Drawn) -> Scored:
        raise NotImplementedError

    def read_base(self, block: Block) -> np.ndarray:
        raise NotImplementedError

    def score_adapted(
        self, block: Block, adapter: AdapterInfo, batch: np.ndarray, drawn: Drawn, base: np.ndarray
    ) -> Scored:
        raise NotImplementedError


class MemoryProbe:
    """A scorer that reports in which memory mapping of its process an argument's bytes are."""

    def look(self, pixels: np.ndarray) -> dict[str, Any]:
        address = pixels.ctypes.data
        for line in Path("/proc/self/maps").read_text().splitlines():
            low, high = (int(x, 16) for x in re.split(r"[- ]", line)[:2])
            if low <= address < high:
                return {
                    "mapping": line.split(maxsplit=5)[-1],
                    "writeable": pixels.flags.writeable,
                    "owned": pixels.flags.owndata,
                }
        raise AssertionError("the address is in no mapping")


class ImageSource:
    """A generator of random images, uint8 (16, 64, 64, 3)."""

    def draw(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)


class FaultyGenerator:
    """A generator that breaks as a GPU may: the first process at its third batch, or every process under one model.

    `spec` is the images' side, the name of that model (None: the first process breaks) and a folder where processes
    register.
    """

    PROBLEM = "CUDA error: an illegal memory access was encountered"

    def __init__(self, spec: tuple[int, str | None, Path]) -> None:
        self.side, self.adapter, started = spec
        self.first = not any(started.iterdir())
        (started / str(os.getpid())).touch()
        self.drawn = 0

    def ready(self, scorer: bool) -> WorkerInfo:
        return NO_DEVICE

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        self.drawn += 1
        if adapter == self.adapter or (self.adapter is None and self.first and self.drawn > 2):
            raise RuntimeError(self.PROBLEM)
        return black(block, self.side)


class StillGenerator:
    """A generator that returns the same pixels, uint8 of a given `shape`, again and again."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def ready(self, scorer: bool) -> WorkerInfo:
        return NO_DEVICE

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        pixels = self.pixels[: len(block.items)]
        return pixels, Drawn((False,) * len(pixels), "none", {"swap_s": 0.0, "draw_s": 0.0})


class StillScorer:
    """A scorer that touches every page of a batch and returns rows of the schema SCORES."""

    def __init__(self, spec: tuple[str, int]) -> None:
        self.digest, self.side = spec

    def ready(self) -> bool:
        return True

    def read_base(self, block: Block) -> np.ndarray:
        return np.zeros((len(block.items), self.side, self.side, 3), np.uint8)

    def score_base(self, block: Block, batch: np.ndarray, drawn: Drawn) -> Scored:
        batch.reshape(-1)[::PAGE].max()
        table = pa.Table.from_pylist([], stamped(NOISE, self.digest))
        return Scored(table, None, ["0" * 64] * len(batch), drawn.device, drawn.seconds | {"score_s": 0.0})

    def score_adapted(
        self, block: Block, adapter: AdapterInfo, batch: np.ndarray, drawn: Drawn, base: np.ndarray
    ) -> Scored:
        n = len(batch)
        for pixels in (batch, base):
            pixels.reshape(-1)[::PAGE].max()
        items = block.items
        columns: dict[str, Any] = {
            "adapter": [adapter.name] * n,
            "method": [adapter.method] * n,
            "subject": [adapter.subject] * n,
            "subject_category": [adapter.subject_category] * n,
            "prompt_id": [i.prompt_id for i in items],
            "prompt_category": [i.prompt_category for i in items],
            "seed": [i.seed for i in items],
            "clip_base": np.zeros(n, np.float32),
            "clip_adapted": np.zeros(n, np.float32),
            "lpips": np.zeros(n, np.float32),
            "base_sha256": ["0" * 64] * n,
            "adapted_sha256": ["0" * 64] * n,
            "drawn": [True] * n,
            "device": [drawn.device] * n,
        }
        table = pa.table(columns, schema=stamped(SCORES, self.digest))
        return Scored(table, None, ["0" * 64] * n, drawn.device, drawn.seconds | {"score_s": 0.0})
