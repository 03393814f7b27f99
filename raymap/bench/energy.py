"""What energy a device used, by counters that it keeps itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


@dataclass
class Meter:
    """Counters that grow with the energy used, each of which starts anew from 0 once it has reached its range.

    A counter may start anew once between two laps: a processor's does so after half an hour or more.
    """

    read: Callable[[], tuple[int, ...]]
    ranges: tuple[int, ...]
    per_joule: int

    def __post_init__(self) -> None:
        self._last = self.read()

    def lap(self) -> float:
        """Return the joules used since the last lap; the first began when the meter was made."""
        now = self.read()
        used = sum((new - old) % range_ for new, old, range_ in zip(now, self._last, self.ranges, strict=True))
        self._last = now
        return used / self.per_joule


def meter(device: str) -> Meter | None:
    """Return a meter of the current GPU, or of all of this machine's processors; None where they do not tell."""
    return _gpu() if device == "cuda" else packages()


def packages(folder: Path = POWERCAP) -> Meter | None:
    """Return a meter of the processor packages (RAPL, Linux's `powercap/intel-rapl:N`, AMD's too), memory left out.

    None where there is none, or where this user may not read it, which is most systems' default.
    """
    zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _text(zone / "name").startswith("package")]
    counters = [zone / "energy_uj" for zone in zones]
    if not counters or not all(os.access(counter, os.R_OK) for counter in counters):
        return None
    ranges = tuple(int(_text(zone / "max_energy_range_uj")) for zone in zones)
    return Meter(lambda: tuple(int(_text(counter)) for counter in counters), ranges, per_joule=10**6)


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii")


def _gpu() -> Meter | None:
    """Return a meter of the current NVIDIA GPU: NVML's total energy in millijoules, which it has since Volta."""
    try:
        from cuda.bindings import nvml  # comes with torch for CUDA, and with no other
    except ModuleNotFoundError:
        return None
    nvml.init_v2()
    # By UUID, because NVML counts devices that CUDA_VISIBLE_DEVICES hides.
    handle = nvml.device_get_handle_by_uuid(f"GPU-{torch.cuda.get_device_properties().uuid}")
    try:
        return Meter(lambda: (nvml.device_get_total_energy_consumption(handle),), (2**64,), per_joule=1000)
    except nvml.NvmlError:  # an older GPU, or part of one
        return None
