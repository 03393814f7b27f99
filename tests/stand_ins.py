"""Actors that stand where a generator or scorer stands; in a module that loads in no time, as each process must."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np


class Generates:
    def __init__(self, error: Exception | None) -> None:
        if error is not None:
            raise error

    def ready(self, scorer: bool) -> dict[str, Any]:
        return {"device": "none"}


class ScoresAfterSeeing:
    def __init__(self, error: Exception | str | None) -> None:
        self.error = error

    def ready(self) -> bool:
        if isinstance(self.error, str):
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.error is not None:
            raise self.error
        return True


class Probe:
    """Stands where a scorer stands and tells where an argument's bytes lie."""

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
    """Stands where a generator stands."""

    def draw(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
