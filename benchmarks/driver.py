"""Measures how many images per second driver, shared memory and commits can carry, with actors that do no arithmetic.

    python -m benchmarks.driver [--side 512] [--batch 30] [--images 40000] [--workers 2]

Generators return real uint8 batches, which Ray copies into shared memory. Scorers map them, touch every page and return
real rows. The reducer writes and syncs files and ledger lines. The first two seconds of drawing are a warm-up. The
output has images per second and the driver's resident memory, after a hundredth of the images and at the end.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from rich.console import Console

from raymap.actors.batches import Drawn, Scored
from raymap.cluster import launch, stream
from raymap.display.progress import Progress
from raymap.plan.blocks import AdapterInfo, Block, Plan, make_plan
from raymap.plan.schedule import Schedule
from raymap.store.folder import RunFolder
from raymap.store.schema import NOISE, SCORES, stamped
from raymap.study.file import build_study
from raymap.study.model import Resources

SEEDS = 10
ADAPTERS = 45
PAGE = 4096
WARM_S = 2.0


class StillGenerator:
    """Returns the same pixels again and again."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def ready(self, scorer: bool = True) -> dict[str, Any]:
        return {"device": "none", "threads": 1}

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        pixels = self.pixels[: len(block.items)]
        return pixels, Drawn((False,) * len(pixels), "none", {"swap_s": 0.0, "draw_s": 0.0})


class StillScorer:
    """Touches every page of a batch and returns rows of the contract's schema."""

    def __init__(self, spec: tuple[str, int]) -> None:
        self.digest, self.side = spec

    def ready(self) -> bool:
        return True

    def read_base(self, block: Block) -> np.ndarray:
        return np.zeros((len(block.items), self.side, self.side, 3), np.uint8)

    def score_base(self, block: Block, pixels: np.ndarray, drawn: Drawn) -> Scored:
        pixels.reshape(-1)[::PAGE].max()
        table = pa.Table.from_pylist([], stamped(NOISE, self.digest))
        return Scored(table, None, ["0" * 64] * len(pixels), drawn.device, drawn.seconds | {"score_s": 0.0})

    def score_adapted(
        self, block: Block, adapter: AdapterInfo, pixels: np.ndarray, drawn: Drawn, base: np.ndarray
    ) -> Scored:
        n = len(pixels)
        for batch in (pixels, base):
            batch.reshape(-1)[::PAGE].max()
        items = block.items
        columns: dict[str, Any] = {
            "adapter": [adapter.name] * n,
            "method": [adapter.method] * n,
            "subject": [adapter.subject] * n,
            "subject_category": [adapter.subject_category] * n,
            "prompt_id": [i.prompt_id for i in items],
            "prompt_category": [i.prompt_category for i in items],
            "seed": [i.seed for i in items],
            "clip_base": np.zeros(n, np.float32),
            "clip_adapted": np.zeros(n, np.float32),
            "lpips": np.zeros(n, np.float32),
            "base_sha256": ["0" * 64] * n,
            "adapted_sha256": ["0" * 64] * n,
            "drawn": [True] * n,
            "device": [drawn.device] * n,
        }
        table = pa.table(columns, schema=stamped(SCORES, self.digest))
        return Scored(table, None, ["0" * 64] * n, drawn.device, drawn.seconds | {"score_s": 0.0})


@dataclass
class Watch(Progress):
    """Counts images and records the driver's memory, in place of a display; its own size does not grow."""

    total: int
    done: int = 0
    began: float = 0.0
    warm: tuple[float, int] = (0.0, 0)
    last: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._process = psutil.Process()

    def drawn(self, images: int) -> None:
        self.last = time.perf_counter()
        self.done += images
        self.began = self.began or self.last
        if not self.warm[1] and self.last > self.began + WARM_S:
            self.warm = self.last, self.done
        if "early" not in self.memory and self.done >= self.total / 100:
            self.memory["early"] = self._process.memory_info().rss
        if self.done % 1000 < images:
            self.memory["end"] = self._process.memory_info().rss

    @property
    def rate(self) -> float:
        """Images per second after the warm-up."""
        begin, before = self.warm
        return (self.done - before) / (self.last - begin)


def planned(images: int, batch: int) -> Plan:
    """Return a plan of at least `images` images by the base and 45 adapters."""
    prompts = -(-images // (SEEDS * (1 + ADAPTERS)))
    raw = {
        "name": "driver",
        "seeds": SEEDS,
        "batch_size": batch,
        "prompts": {"scenes": [f"place {k}" for k in range(prompts)]},
        "adapters": ["none"],
    }
    adapters = tuple(AdapterInfo(f"adapter-{k}", "lora", f"subject-{k}", "object", "0" * 64) for k in range(ADAPTERS))
    return make_plan(build_study(raw, "driver", Path()), adapters, {})


def main() -> None:
    """Print the rate, the driver's memory and, with --profile, where its time goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=30, help="images per batch")
    parser.add_argument("--images", type=int, default=40_000, help="number of images, at least")
    parser.add_argument("--workers", type=int, default=2, help="number of workers")
    parser.add_argument("--profile", action="store_true", help="show where the driver's own time goes")
    args = parser.parse_args()
    plan = planned(args.images, args.batch)
    total = plan.images(set(plan.units))
    resources = Resources.model_validate({"workers": args.workers})
    shape = (args.batch, args.side, args.side, 3)
    watch = Watch(total)
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as temporary, launch.runtime(resources):
        folder = RunFolder(Path(temporary))
        driver = stream.Stream(
            plan,
            Schedule(plan, set()),
            folder,
            launch.start_reducer(folder),
            lambda: launch.start_pair(StillGenerator, shape, StillScorer, (plan.digest, args.side), resources),
            watch,
        )
        if args.profile:
            profile.enable()
        driver.run(resources.workers)
        profile.disable()
        files = len(list(folder.scores.iterdir()))
    console = Console(width=120)
    growth = watch.memory["end"] / watch.memory["early"] - 1
    console.print(f"{total} images of {args.side}x{args.side} in batches of {args.batch}, {args.workers} workers:")
    console.print(f"{watch.rate:.0f} images/s after warm-up; {files} score files", highlight=False)
    console.print(
        f"driver's memory: {watch.memory['early'] / 2**20:.0f} MiB at {total // 100} images, "
        f"{watch.memory['end'] / 2**20:.0f} MiB at the end ({growth:+.1%})",
        highlight=False,
    )
    if args.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(15)


if __name__ == "__main__":
    main()
