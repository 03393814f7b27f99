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

import psutil
from rich.console import Console

from raymap.cluster import launch, stream
from raymap.display.progress import Progress
from raymap.plan.schedule import Schedule
from raymap.store.folder import RunFolder
from raymap.study.model import Resources
from raymap.testing.actors import StillGenerator, StillScorer
from raymap.testing.plans import plan_of

WARM_S = 2.0


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


def main() -> None:
    """Print the rate, the driver's memory and, with --profile, where its time goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=30, help="images per batch")
    parser.add_argument("--images", type=int, default=40_000, help="number of images, at least")
    parser.add_argument("--workers", type=int, default=2, help="number of workers")
    parser.add_argument("--profile", action="store_true", help="show where the driver's own time goes")
    args = parser.parse_args()
    plan = plan_of(args.images, args.batch)
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
