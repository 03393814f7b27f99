"""A worker of a setup: a process that draws and scores blocks, in step with the other workers.

It does the work of a generator and of the scorer beside it, including the writing of images: a block is drawn by the
base, then under every adapter.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import numpy as np
import torch

from raymap.base.compile import compiled_once
from raymap.base.device import device_name
from raymap.base.processor import matrix_speed
from raymap.base.throughput import PEAK_TFLOPS
from raymap.bench.drawing import Drawer, block_of
from raymap.bench.energy import meter
from raymap.bench.models import image_flops
from raymap.bench.scorer import InlineScorer, ScorerProcess, start_process
from raymap.bench.setups import Setup
from raymap.plan.blocks import Block

PATIENCE_S = 3600.0
"""How long a worker waits for the others, in seconds: one may take longer to compile."""


@dataclass(frozen=True)
class Timing:
    """How long one worker took for a block under the base and every adapter.

    `began` and `ended` are readings of the monotonic clock. `swap_s`, `draw_s` and `score_s` are the seconds spent
    swapping, drawing, and scoring or waiting for the scorer. `peak` is the device's peak in FLOP/s, where it is known.
    `memory` is the peak memory of the process so far (on a GPU that of its tensors), in bytes. `joules` is the energy
    of the worker's GPU, or of all processors of the machine, where it is counted.
    """

    began: float
    ended: float
    images: int
    swaps: int
    swap_s: float
    draw_s: float
    score_s: float
    peak: float | None
    memory: int
    joules: float | None = None


@dataclass(frozen=True)
class WorkerReport:
    """What a worker measured, with one `Timing` per repeat.

    `first_batch` is the monotonic clock's reading when the first batch was drawn, and `pixels` is that batch, uint8
    (N, H, W, 3). `image_flops` are the FLOPs of one image, `device` is the name of the device.
    """

    first_batch: float
    image_flops: float
    device: str
    repeats: tuple[Timing, ...]
    pixels: np.ndarray


def gpu_peak(name: str, dtype: str) -> float | None:
    """Return the dense peak in FLOP/s of a GPU with the name that CUDA gives it; None if PEAK_TFLOPS does not list it.

    The figures of H100 and H200 are those of the SXM modules. PCIe and NVL cards are slower, so their peak is None.
    """
    words = set(name.replace("-", " ").split())
    if {"PCIe", "NVL"} & words and {"H100", "H200"} & words:
        return None
    peaks = next((PEAK_TFLOPS[word] for word in words if word in PEAK_TFLOPS), None)
    return None if peaks is None else 1e12 * peaks[0 if dtype == "float32" else 1]


class Worker:
    """A setup's model, adapters and scorer on one device."""

    def __init__(self, setup: Setup, folder: Path, number: int = 0) -> None:
        self.setup = setup
        self.drawer = Drawer(setup)
        self._scorer: InlineScorer | ScorerProcess = (
            InlineScorer(setup, folder)
            if setup.scorer == "inline"
            else ScorerProcess(setup, folder, self.drawer.side, number)
        )

    def time(self, block: Block) -> Timing:
        """Draw and score a block by the base and under every adapter; return the timing."""
        drawer, peak = self.drawer, self.peak()
        swap_s = draw_s = score_s = 0.0
        energy = meter(self.setup.device)
        joules = 0.0
        began = self._now()
        for adapter in (None, *drawer.adapters):
            start = self._now()
            drawer.store.swap(adapter.name if adapter else None)
            swapped = self._now()
            pixels = drawer.draw(block)
            drawn = self._now()
            self._scorer.take(block, adapter, pixels)
            if adapter is drawer.adapters[-1]:
                self._scorer.finish()
            scored = self._now()
            swap_s, draw_s, score_s = swap_s + swapped - start, draw_s + drawn - swapped, score_s + scored - drawn
            joules += energy.lap() if energy else 0.0
        ended, models = self._now(), 1 + len(drawer.adapters)
        return Timing(began, ended, models * len(block.items), models, swap_s, draw_s, score_s, peak, self.memory(),
                      joules if energy else None)  # fmt: skip

    def peak(self) -> float | None:
        """Return the device's peak in FLOP/s: a GPU's from its data sheet, a CPU's measured with a matrix product."""
        if self.setup.device == "cpu":
            return matrix_speed(self.setup.threads)
        return gpu_peak(torch.cuda.get_device_name(), self.setup.dtype)

    def memory(self) -> int:
        """Return the peak memory so far, in bytes."""
        if self.setup.device == "cuda":
            return torch.cuda.max_memory_allocated()
        # Not resource.getrusage, whose figure starts at that of the parent process.
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])

    def _now(self) -> float:
        if self.setup.device == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()


def work(setup: Setup, number: int, repeats: Sequence[int], barrier: Barrier) -> WorkerReport:
    """Do a worker's part of a measurement, in step with the other workers; the first block is a warm-up.

    Raises:
        RuntimeError: the device is out of memory, the attention backend cannot run here, or a swap makes a compiled
            setup compile again.
        DrawingError: the setup draws images that cannot be scored.
    """
    start_process(setup, number)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as failing:
        failing.callback(barrier.abort)  # so that the others don't wait for this one
        worker = Worker(setup, Path(folder), number)
        first = block_of(setup, 0)
        pixels = worker.drawer.draw(first)
        first_batch = time.monotonic()
        pipeline = worker.drawer.pipeline
        flops = image_flops(pipeline, len(pipeline.scheduler.timesteps), setup.guidance_scale > 1)
        timings = []
        with compiled_once(setup.speed):
            worker.time(first)
            for repeat in repeats:
                barrier.wait(PATIENCE_S)
                timings.append(worker.time(block_of(setup, 1 + repeat)))
        failing.pop_all()
    name = torch.cuda.get_device_name() if setup.device == "cuda" else device_name(setup.device)
    return WorkerReport(first_batch, flops, name, tuple(timings), pixels)
