"""How many FLOP/s drawing and training reach on the device that a study asks for.

On a GPU they follow from its peak (dense, by its maker's data sheet) and the share of it that drawing reaches, SHARE:
what the best published batched sampling of SD 1.5 reaches on an A100. On a CPU they are CPU_SHARE of the speed of its
matrix products, which is measured on the spot. Training computes in float32, on a GPU also in bfloat16 where a study
draws in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from raymap.base.processor import matrix_speed
from raymap.study.model import Resources

SHARE = 0.4
CPU_SHARE = 0.6
USUAL = "A100"
"""The GPU that is assumed where a study names none."""

PEAK_TFLOPS = {
    "T4": (8.1, 65.0), "V100": (15.7, 125.0), "A10G": (31.2, 70.0), "L4": (30.3, 121.0), "L40S": (91.6, 362.0),
    "A100": (19.5, 312.0), "H100": (67.0, 989.0), "H200": (67.0, 989.0),
}  # fmt: skip
"""Dense peaks by Ray's names of accelerators: float32 without TF32, and 16-bit."""

MEMORY_GIB = {"T4": 16, "V100": 16, "A10G": 24, "L4": 24, "L40S": 48, "A100": 40, "H100": 80, "H200": 141}
"""Memory of accelerators by Ray's names, in GiB; of those that are sold with two sizes the smaller."""
_SIZE = re.compile(r"-(\d+)G$")


@dataclass(frozen=True)
class Throughput:
    """FLOP/s of drawing and of training, and the device that they are assumed for, in words."""

    drawing: float
    training: float
    device: str


def device_memory(resources: Resources) -> int | None:
    """Return how many bytes of GPU memory a worker has; None where it has no GPU.

    It is what `gpu_memory` says, or what the accelerator has, of which a worker has the share that it reserves.
    """
    if resources.device == "cpu":
        return None
    kind = resources.accelerator_type or USUAL
    named = _SIZE.search(kind)  # as in A100-80G
    whole = float(named[1]) if named else MEMORY_GIB.get(kind.partition("-")[0], MEMORY_GIB[USUAL])
    return int((resources.gpu_memory or whole * resources.gpus_per_worker) * 2**30)


def throughput(resources: Resources, dtype: str) -> Throughput:
    """Return what one worker's device reaches; `dtype` is what a study draws in."""
    if resources.device == "cpu":
        speed = CPU_SHARE * matrix_speed(resources.threads_per_worker)
        return Throughput(speed, speed, f"worker like this machine ({resources.threads_per_worker} threads)")
    kind = (resources.accelerator_type or USUAL).partition("-")[0]
    known = kind if kind in PEAK_TFLOPS else USUAL
    single, half = (SHARE * 1e12 * peak for peak in PEAK_TFLOPS[known])
    device = f"{known} GPU at {SHARE:.0%} of its {dtype} peak"
    if dtype == "float32":
        return Throughput(single, single, device)
    if dtype == "bfloat16":
        return Throughput(half, half, device)
    return Throughput(half, single, f"{device} (in training of its float32 peak)")
