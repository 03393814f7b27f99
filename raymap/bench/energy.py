"""The energy that a device used, by its own counters."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


@dataclass
class Meter:
    """Counters that grow with the energy used.

    `read` returns their values, of which `per_joule` make a joule. Each counter restarts from 0 when it has reached its
    value in `ranges`. Between two laps it may do so once: a processor's counter takes half an hour or more.
    """

    read: Callable[[], tuple[int, ...]]
    ranges: tuple[int, ...]
    per_joule: int

    def __post_init__(self) -> None:
        self._last = self.read()

    def lap(self) -> float:
        """Return the joules used since the last lap, or since the meter was created."""
        now = self.read()
        used = sum((new - old) % limit for new, old, limit in zip(now, self._last, self.ranges, strict=True))
        self._last = now
        return used / self.per_joule


def meter(device: str) -> Meter | None:
    """Return a meter of the current GPU, or of all processors of this machine; None where no counter can be read."""
    return _gpu_meter() if device == "cuda" else processor_meter()


def processor_meter(folder: Path = POWERCAP) -> Meter | None:
    """Return a meter of the processor packages without their memory (RAPL: Linux's `powercap/intel-rapl:N`, AMD's too).

    None where the machine has no such counters, or where this user may not read them, which is most systems' default.
    """
    zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _text(zone / "name").startswith("package")]
    counters = [zone / "energy_uj" for zone in zones]
    if not counters or not all(os.access(counter, os.R_OK) for counter in counters):
        return None
    ranges = tuple(int(_text(zone / "max_energy_range_uj")) for zone in zones)
    return Meter(lambda: tuple(int(_text(counter)) for counter in counters), ranges, per_joule=10**6)


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii")


def _gpu_meter() -> Meter | None:
    """Return a meter of the current NVIDIA GPU: NVML's total energy in millijoules, counted since Volta."""
    try:
        from cuda.bindings import nvml  # installed with torch builds for CUDA only
    except ModuleNotFoundError:
        return None
    nvml.init_v2()
    # By UUID, because NVML counts devices that CUDA_VISIBLE_DEVICES hides.
    handle = nvml.device_get_handle_by_uuid(f"GPU-{torch.cuda.get_device_properties().uuid}")
    try:
        return Meter(lambda: (nvml.device_get_total_energy_consumption(handle),), (2**64,), per_joule=1000)
    except nvml.NvmlError:  # an older GPU, or a MIG part of one
        return None
