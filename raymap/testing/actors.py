"""Actors that take the place of generators and scorers, in a module that every process loads quickly."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np

from raymap.actors.batches import Drawn, Scored
from raymap.actors.roles import WorkerInfo
from raymap.cluster.shells import Built
from raymap.plan.blocks import AdapterInfo, Block

NOWHERE = WorkerInfo(device="none", threads=1)


def _draw_nothing(block: Block, side: int) -> tuple[np.ndarray, Drawn]:
    n = len(block.items)
    return np.zeros((n, side, side, 3), np.uint8), Drawn((True,) * n, NOWHERE.device, {"draw_s": 0.0})


class Generates:
    """A generator whose constructor may fail."""

    def __init__(self, error: Exception | None) -> None:
        def build() -> WorkerInfo:
            if error is not None:
                raise error
            return NOWHERE

        self._built = Built(build)

    def ready(self, scorer: bool) -> WorkerInfo:
        return self._built.checked()

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        return _draw_nothing(block, side=1)


class ScoresAfterSeeing:
    """A scorer that fails, or is killed, before it is ready."""

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


class Probe:
    """Takes the place of a scorer and tells where an argument's bytes are."""

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
        raise AssertionError("the address lies in no mapping")


class Source:
    """Takes the place of a generator."""

    def draw(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)


class Breaking:
    """Takes the place of a generator and breaks: only the first process, or every one under a given model."""

    PROBLEM = "CUDA error: an illegal memory access was encountered"

    def __init__(self, spec: tuple[int, str | None, Path]) -> None:
        self.side, self.adapter, started = spec
        self.first = not any(started.iterdir())
        (started / str(os.getpid())).touch()
        self.drawn = 0

    def ready(self, scorer: bool) -> WorkerInfo:
        return NOWHERE

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        self.drawn += 1
        if adapter == self.adapter or (self.adapter is None and self.first and self.drawn > 2):
            raise RuntimeError(self.PROBLEM)
        return _draw_nothing(block, self.side)
