"""Measures a setup: its workers, each a process, draw and score blocks at the same time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from threading import BrokenBarrierError
from typing import Any

from raymap.bench.difference import Difference, difference_from_plain
from raymap.bench.setups import Setup
from raymap.bench.worker import Timing, WorkerReport, work


def measure(setup: Setup, repeats: Sequence[int]) -> list[dict[str, Any]]:
    """Measure a setup in fresh processes; return one row per repeat (schema `raymap.bench.record.ROWS`).

    Raises:
        RuntimeError: a worker failed or was killed.
        DrawingError: a worker drew images that cannot be scored.
    """
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier, started = manager.Barrier(setup.workers), time.monotonic()
        with ProcessPoolExecutor(setup.workers, context) as pool:
            futures = [pool.submit(work, setup, number, repeats, barrier) for number in range(setup.workers)]
    errors = [error for future in futures if (error := future.exception())]
    if errors:  # after one worker fails, the others report a broken barrier
        raise next((error for error in errors if not isinstance(error, BrokenBarrierError)), errors[0])
    reports = [future.result() for future in futures]
    startup = max(report.first_batch for report in reports) - started
    difference = None
    if setup != setup.plain:
        with ProcessPoolExecutor(1, context) as pool:
            difference = pool.submit(difference_from_plain, setup, reports[0].pixels).result()
    return [
        row(setup, repeat, startup, reports[0], [report.repeats[k] for report in reports], difference)
        for k, repeat in enumerate(repeats)
    ]


def row(
    setup: Setup,
    repeat: int,
    startup: float,
    report: WorkerReport,
    timings: Sequence[Timing],
    difference: Difference | None = None,
) -> dict[str, Any]:
    """Return the row of one repeat from its workers' timings and the setup's difference from the plain one."""
    seconds = max(t.ended for t in timings) - min(t.began for t in timings)
    images = sum(t.images for t in timings)
    spent = sum(t.ended - t.began for t in timings)
    peaks = [t.peak for t in timings if t.peak]
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
        "joules_per_image": joules(setup, timings, images),
        "swap_s": sum(t.swap_s for t in timings) / sum(t.swaps for t in timings),
        "swap_share": sum(t.swap_s for t in timings) / spent,
        "draw_share": sum(t.draw_s for t in timings) / spent,
        "score_share": sum(t.score_s for t in timings) / spent,
        "memory_bytes": max(t.memory for t in timings),
        "startup_s": startup,
        "pixel_difference": difference.pixel if difference else None,
        "pixel_difference_mean": difference.pixel_mean if difference else None,
        "clip_difference": difference.clip if difference else None,
        "lpips_difference": difference.lpips if difference else None,
    }


def joules(setup: Setup, timings: Sequence[Timing], images: int) -> float | None:
    """Return the joules per image, or None where no device counts its energy.

    Each worker has a GPU of its own. Processors are counted for the whole machine, by every worker, so that the largest
    of the workers' figures stands for all of them.
    """
    counts = [t.joules for t in timings if t.joules is not None]
    if not counts:
        return None
    return (sum(counts) if setup.device == "cuda" else max(counts)) / images
