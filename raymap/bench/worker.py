"""One of a setup's workers: a process that draws and scores blocks, in step with the others.

It does what a generator and the scorer beside it do, pictures written and all: a block drawn by the base, then under
every adapter.
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
from raymap.bench.drawing import Drawing, block_of
from raymap.bench.energy import meter
from raymap.bench.judge import Judge, JudgeApart, start_process
from raymap.bench.models import image_flops
from raymap.bench.setups import Setup
from raymap.plan.blocks import Block

PATIENCE_S = 3600.0
"""How long workers wait for each other: one may compile longer than another."""


@dataclass(frozen=True)
class Timed:
    """One worker's block under the base and every adapter: when it began and ended (monotonic clock), seconds by stage.

    `swaps` is how many there were; `score_s` is what drawing waited for scoring. `peak` is the device's, FLOP/s, where
    it is known. `memory` is the most that the process (on a GPU: its tensors there) has held so far, in bytes.
    `joules` are those of its GPU, or of the whole machine's processors, where they tell.
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
class Report:
    """What a worker says: when its first batch was drawn, FLOPs of an image, its device, a `Timed` a repeat.

    `pixels` are that first batch's, uint8 (N, H, W, 3).
    """

    first_batch: float
    image_flops: float
    device: str
    repeats: tuple[Timed, ...]
    pixels: np.ndarray


def gpu_peak(name: str, dtype: str) -> float | None:
    """Return a GPU's dense peak, FLOP/s, by the name that CUDA gives it; None where that is no name of PEAK_TFLOPS.

    The H100's and H200's figures are those of the SXM modules; PCIe and NVL cards are slower.
    """
    words = set(name.replace("-", " ").split())
    if {"PCIe", "NVL"} & words and {"H100", "H200"} & words:
        return None
    known = next((PEAK_TFLOPS[word] for word in words if word in PEAK_TFLOPS), None)
    return None if known is None else 1e12 * known[0 if dtype == "float32" else 1]


class Worker:
    """One setup's model, adapters and judges on one device."""

    def __init__(self, setup: Setup, folder: Path, number: int = 0) -> None:
        self.setup = setup
        self.drawing = Drawing(setup)
        self._judge: Judge | JudgeApart = (
            Judge(setup, folder) if setup.scorer == "inline" else JudgeApart(setup, folder, self.drawing.side, number)
        )

    def time(self, block: Block) -> Timed:
        """Draw and score a block by the base and under every adapter."""
        drawing, peak = self.drawing, self.peak()
        swap_s = draw_s = score_s = 0.0
        energy = meter(self.setup.device)
        joules = 0.0
        began = self._now()
        for adapter in (None, *drawing.adapters):
            start = self._now()
            drawing.store.swap(adapter.name if adapter else None)
            swapped = self._now()
            pixels = drawing.draw(block)
            drawn = self._now()
            self._judge.take(block, adapter, pixels)
            if adapter is drawing.adapters[-1]:
                self._judge.finish()
            scored = self._now()
            swap_s, draw_s, score_s = swap_s + swapped - start, draw_s + drawn - swapped, score_s + scored - drawn
            joules += energy.lap() if energy else 0.0
        ended, models = self._now(), 1 + len(drawing.adapters)
        return Timed(began, ended, models * len(block.items), models, swap_s, draw_s, score_s, peak, self.memory(),
                     joules if energy else None)  # fmt: skip

    def peak(self) -> float | None:
        """Return the device's peak, FLOP/s: by its maker's data sheet, of a CPU that of a matrix product, measured."""
        if self.setup.device == "cpu":
            return matrix_speed(self.setup.threads)
        return gpu_peak(torch.cuda.get_device_name(), self.setup.dtype)

    def memory(self) -> int:
        """Return the most memory held so far, in bytes."""
        if self.setup.device == "cuda":
            return torch.cuda.max_memory_allocated()
        # Not resource.getrusage: its figure starts at the parent process's.
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])

    def _now(self) -> float:
        if self.setup.device == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()


def work(setup: Setup, number: int, repeats: Sequence[int], barrier: Barrier) -> Report:
    """Do a worker's part of a measurement, in step with the others; the first block does not count.

    Raises:
        RuntimeError: an out-of-memory, an attention backend that cannot run here, or a compiled setup that a swap makes
            compile anew.
        DrawingError: pictures that cannot be scored.
    """
    start_process(setup, number)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as failing:
        failing.callback(barrier.abort)  # so that the others don't wait for this one
        worker = Worker(setup, Path(folder), number)
        first = block_of(setup, 0)
        pixels = worker.drawing.draw(first)
        first_batch = time.monotonic()
        pipeline = worker.drawing.pipeline
        cost = image_flops(pipeline, len(pipeline.scheduler.timesteps), setup.guidance_scale > 1)
        timed = []
        with compiled_once(setup.speed):
            worker.time(first)
            for repeat in repeats:
                barrier.wait(PATIENCE_S)
                timed.append(worker.time(block_of(setup, 1 + repeat)))
        failing.pop_all()
    name = torch.cuda.get_device_name() if setup.device == "cuda" else device_name(setup.device)
    return Report(first_batch, cost, name, tuple(timed), pixels)
