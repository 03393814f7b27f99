"""Seconds of work on a device, the share of them in which it was busy, and the speed of its matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def synchronize(device: str) -> None:
    """Wait until a GPU has done its work; a CPU's is done when its call returns."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str, repeats: int = 5, warm_up: int = 2) -> float:
    """Return the median seconds of a piece of work, its last kernel included."""
    times = []
    for k in range(warm_up + repeats):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        if k >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_peak(device: str, dtype: torch.dtype, side: int) -> float:
    """Return the FLOP/s of a product of two square matrices of random numbers."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: a @ b, device, repeats=10)


def busy_share(work: Callable[[], object]) -> float | None:
    """Return the share of a piece of work's time in which this process had a kernel or a copy on the GPU."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    events = [
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in profiler.profiler.kineto_results.events()
        if event.device_type().name == "CUDA"
    ]
    busy, until = 0, 0
    for began, ended in sorted(events):
        busy += max(0, ended - max(began, until))
        until = max(until, ended)
    return busy / 1e9 / seconds if events else None
