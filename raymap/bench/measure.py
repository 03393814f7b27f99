"""Measures a setup: its workers, a process each, draw and score blocks at the same time.

A worker does what a generator and the scorer beside it do, one after the other in one process, pictures written and
all: a block drawn by the base, then under every adapter. `raymap run` scores a batch while it draws the next.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import torch

from raymap.actors.batches import Drawn
from raymap.actors.scorer import Scorer
from raymap.actors.specs import ScorerSpec
from raymap.adapters.store import AdapterStore
from raymap.adapters.update import Adapter
from raymap.bench.models import build, image_flops, quiet, random_lora
from raymap.bench.setups import Setup
from raymap.cost import PEAK_TFLOPS
from raymap.device import device_name, pin
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.plan import AdapterInfo, Block, Item
from raymap.speed import matrix_speed
from raymap.study import SamplerSettings
from raymap.suite import read_suite

SEEDS = (0, 1)
PATIENCE_S = 3600.0
"""How long workers wait for each other: one may compile longer than another."""


@dataclass(frozen=True)
class Timed:
    """One worker's block under the base and every adapter: when it began and ended (monotonic clock), seconds by stage.

    `swaps` is how many there were. `peak` is the device's, FLOP/s, where it is known. `memory` is the most that the
    process (on a GPU: its tensors there) has held so far, in bytes.
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


@dataclass(frozen=True)
class Report:
    """What a worker says: when its first batch was drawn, FLOPs of an image, its device, a `Timed` a repeat."""

    first_batch: float
    image_flops: float
    device: str
    repeats: tuple[Timed, ...]


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

    def __init__(self, setup: Setup, folder: Path) -> None:
        pin(setup.threads)
        self.setup = setup
        self.pipeline = build(setup)
        self.store = AdapterStore(self.pipeline)
        self.adapters = [AdapterInfo(f"lora-{k}", "lora", "none", "unknown", "") for k in range(setup.adapters)]
        for k, adapter in enumerate(self.adapters):
            self.store.add(adapter.name, Adapter(random_lora(self.pipeline.unet, k)))
        self.encoder = PromptEncoder(self.pipeline, self.store)
        self.scorer = Scorer(
            ScorerSpec(setup.clip, setup.lpips, folder, "", keep_all=False, threads=setup.threads, device=setup.device)
        )
        self.sampler = SamplerSettings(steps=setup.steps, guidance_scale=setup.guidance_scale)
        self.prompts = read_suite("embedded", "bench", folder)

    def draw(self, block: Block) -> Any:
        """Draw a block under what is in force: uint8 (N, H, W, 3)."""
        prompts, seeds = [item.prompt for item in block.items], tuple(item.seed for item in block.items)
        return draw(self.pipeline, self.encoder, prompts, seeds, self.sampler, self.setup.batch_size)

    def block(self, index: int) -> Block:
        """Return a block that fills a batch; each index has its own prompts until the suite is through."""
        size = self.setup.batch_size
        start = index * -(-size // len(SEEDS))
        chosen = [self.prompts[(start + k // len(SEEDS)) % len(self.prompts)] for k in range(size)]
        items = tuple(Item(p.id, p.text, p.category, SEEDS[k % len(SEEDS)]) for k, p in enumerate(chosen))
        return Block(index, items, tuple((k, k + 1) for k in range(0, size - 1, 2)))

    def time(self, block: Block) -> Timed:
        """Draw and score a block by the base and under every adapter."""
        peak = self.peak()
        swap_s = draw_s = score_s = 0.0
        began = self._now()
        base = np.empty(0)
        for adapter in (None, *self.adapters):
            start = self._now()
            self.store.swap(adapter.name if adapter else None)
            swapped = self._now()
            pixels = self.draw(block)
            drawn = self._now()
            how = Drawn((False,) * len(block.items), self.setup.device, {})
            if adapter is None:
                base = pixels
                self.scorer.score_base(block, pixels, how)
            else:
                self.scorer.score_adapted(block, adapter, pixels, how, base)
            scored = self._now()
            swap_s, draw_s, score_s = swap_s + swapped - start, draw_s + drawn - swapped, score_s + scored - drawn
        models = 1 + len(self.adapters)
        images = models * len(block.items)
        return Timed(began, self._now(), images, models, swap_s, draw_s, score_s, peak, self.memory())

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
        RuntimeError: an out-of-memory, or a compiled setup that a swap makes compile anew.
        DrawingError: pictures that cannot be scored.
    """
    warnings.filterwarnings("ignore", module="torchvision")  # lpips asks it in a way of yesterday
    quiet()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as failing:
        failing.callback(barrier.abort)  # so that the others don't wait for this one
        if setup.device == "cuda":
            torch.cuda.set_device(number)
        worker = Worker(setup, Path(folder))
        worker.draw(worker.block(0))
        first_batch = time.monotonic()
        steps = len(worker.pipeline.scheduler.timesteps)
        cost = image_flops(worker.pipeline, steps, setup.guidance_scale > 1)
        timed = []
        with torch.compiler.set_stance("fail_on_recompile" if setup.compile != "none" else "default"):
            worker.time(worker.block(0))
            for repeat in repeats:
                barrier.wait(PATIENCE_S)
                timed.append(worker.time(worker.block(1 + repeat)))
        failing.pop_all()
    name = torch.cuda.get_device_name() if setup.device == "cuda" else device_name(setup.device)
    return Report(first_batch, cost, name, tuple(timed))


def measure(setup: Setup, repeats: Sequence[int]) -> list[dict[str, Any]]:
    """Measure a setup in fresh processes; return a row a repeat (schema `raymap.bench.record.ROWS`).

    Raises:
        RuntimeError: a worker failed or was killed.
        DrawingError: as `work`.
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
    return [
        row(setup, repeat, startup, reports[0], [report.repeats[k] for report in reports])
        for k, repeat in enumerate(repeats)
    ]


def row(setup: Setup, repeat: int, startup: float, report: Report, timed: Sequence[Timed]) -> dict[str, Any]:
    """Return one repeat's row from what its workers measured."""
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
        "swap_s": sum(t.swap_s for t in timed) / sum(t.swaps for t in timed),
        "swap_share": sum(t.swap_s for t in timed) / spent,
        "draw_share": sum(t.draw_s for t in timed) / spent,
        "score_share": sum(t.score_s for t in timed) / spent,
        "memory_bytes": max(t.memory for t in timed),
        "startup_s": startup,
    }
