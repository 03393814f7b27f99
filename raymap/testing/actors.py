"""Stand-ins for generators and scorers, in a module that every actor process imports quickly."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np

from raymap.actors.batches import Drawn
from raymap.plan.blocks import Block


class StubGenerator:
    """A generator that fails to start with a given error, or starts and does nothing."""

    def __init__(self, error: Exception | None) -> None:
        if error is not None:
            raise error

    def ready(self, scorer: bool) -> dict[str, Any]:
        return {"device": "none"}


class StubScorer:
    """A scorer whose `ready` raises a given error, or kills its process where it is given a text instead."""

    def __init__(self, error: Exception | str | None) -> None:
        self.error = error

    def ready(self) -> bool:
        if isinstance(self.error, str):
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.error is not None:
            raise self.error
        return True


class MemoryProbe:
    """Takes a scorer's place and reports in which memory mapping an argument's bytes are."""

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
    """Takes a generator's place and returns random images, uint8 (16, 64, 64, 3)."""

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

    def ready(self, scorer: bool) -> dict[str, Any]:
        return {"device": "none"}

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        self.drawn += 1
        if adapter == self.adapter or (self.adapter is None and self.first and self.drawn > 2):
            raise RuntimeError(self.PROBLEM)
        n = len(block.items)
        return np.zeros((n, self.side, self.side, 3), np.uint8), Drawn((True,) * n, "none", {"draw_s": 0.0})
