"""Measures a setup: its workers, a process each, draw and score blocks at the same time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from threading import BrokenBarrierError
from typing import Any

from raymap.bench.difference import Difference, from_plain
from raymap.bench.setups import Setup
from raymap.bench.worker import Report, Timed, work


def measure(setup: Setup, repeats: Sequence[int]) -> list[dict[str, Any]]:
    """Measure a setup in fresh processes; return a row a repeat (schema `raymap.bench.record.ROWS`).

    Raises:
        RuntimeError: a worker failed or was killed.
        DrawingError: as `raymap.bench.worker.work`.
    """
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier, started = manager.Barrier(setup.workers), time.monotonic()
        with ProcessPoolExecutor(setup.workers, context) as pool:
            futures = [pool.submit(work, setup, number, repeats, barrier) for number in range(setup.workers)]
    errors = [error for future in futures if (error := future.exception())]
    if errors:  # the others only say that they were not waited for
        raise next((error for error in errors if not isinstance(error, BrokenBarrierError)), errors[0])
    reports = [future.result() for future in futures]
    startup = max(report.first_batch for report in reports) - started
    differs = None
    if setup != setup.plain:
        with ProcessPoolExecutor(1, context) as pool:
            differs = pool.submit(from_plain, setup, reports[0].pixels).result()
    return [
        row(setup, repeat, startup, reports[0], [report.repeats[k] for report in reports], differs)
        for k, repeat in enumerate(repeats)
    ]


def row(
    setup: Setup,
    repeat: int,
    startup: float,
    report: Report,
    timed: Sequence[Timed],
    differs: Difference | None = None,
) -> dict[str, Any]:
    """Return one repeat's row from what its workers measured, and what the setup differs from the plain one by."""
    seconds = max(t.ended for t in timed) - min(t.began for t in timed)
    images = sum(t.images for t in timed)
    spent = sum(t.ended - t.began for t in timed)
    peaks = [t.peak for t in timed if t.peak]
    speed = images * report.image_flops / seconds
    return {
        **setup.model_dump(),
        "key": setup.key,
        "repeat": repeat,
        "device_name": report.device,
        "images": images,
        "seconds": seconds,
        "images_per_s": images / seconds,
        "image_steps_per_s": images * setup.steps / seconds,
        "image_flops": report.image_flops,
        "flops_per_s": speed,
        "peak_flops_per_s": sum(peaks) if peaks else None,
        "peak_share": speed / sum(peaks) if peaks else None,
        "joules_per_image": joules(setup, timed, images),
        "swap_s": sum(t.swap_s for t in timed) / sum(t.swaps for t in timed),
        "swap_share": sum(t.swap_s for t in timed) / spent,
        "draw_share": sum(t.draw_s for t in timed) / spent,
        "score_share": sum(t.score_s for t in timed) / spent,
        "memory_bytes": max(t.memory for t in timed),
        "startup_s": startup,
        "pixel_difference": differs.pixel if differs else None,
        "pixel_difference_mean": differs.pixel_mean if differs else None,
        "clip_difference": differs.clip if differs else None,
        "lpips_difference": differs.lpips if differs else None,
    }


def joules(setup: Setup, timed: Sequence[Timed], images: int) -> float | None:
    """Return the joules of an image, where devices tell.

    Each worker has a GPU of its own. Processors are counted for the whole machine, so that of several workers the one
    that saw most of it says it all.
    """
    told = [t.joules for t in timed if t.joules is not None]
    if not told:
        return None
    return (sum(told) if setup.device == "cuda" else max(told)) / images
