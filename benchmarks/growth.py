"""Measures how a run's time and memory grow with prompts, adapters and seeds, in real runs of the embedded base.

    python -m benchmarks.growth [--chart growth.png] [--steps 4]

Each of the three grows alone, from a study of 4 prompts, 2 adapters and 2 seeds. Seconds last from the first batch's
commit to the last one's, without start-up, training, statistics and report. Memory is the peak of the driver and its
children together. A straight line is fitted to the seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import yaml
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import linregress

from raymap.base.pipeline import load
from raymap.bench.models import random_lora, write_lora
from raymap.embedded.model import PIPELINE
from raymap.study.suite import limited, read_suite

TICK_S = 0.5


@dataclass(frozen=True)
class Size:
    """The size of a study."""

    prompts: int = 4
    adapters: int = 2
    seeds: int = 2

    @property
    def images(self) -> int:
        """The number of images, including those of the base."""
        return self.prompts * self.seeds * (1 + self.adapters)


SIZES = {
    "prompts": [replace(Size(), prompts=n) for n in (4, 8, 16, 32)],
    "adapters": [replace(Size(), adapters=n) for n in (2, 5, 11, 23)],
    "seeds": [replace(Size(), seeds=n) for n in (2, 4, 8, 16)],
}


def run(size: Size, adapters: list[Path], steps: int, folder: Path) -> tuple[float, float]:
    """Run a study of a given size; return its seconds and its peak memory in GiB."""
    suite = limited(read_suite("embedded", "growth", folder), size.prompts)
    study = {
        "name": "growth",
        "prompts": [{"text": p.text, "category": p.category} for p in suite],
        "seeds": size.seeds,
        "sampler": {"steps": steps},
        "adapters": [str(path) for path in adapters[: size.adapters]],
        "identity_control": False,
        "batch_size": 8,
        "resources": {"workers": 1},
    }
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "raymap", "run", str(folder / "study.yaml"), "--output", str(folder / "run")]
    driver = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while driver.poll() is None:
        resident = 0
        for process in (driver, *driver.children(recursive=True)):
            try:
                resident += process.memory_full_info().pss
            except psutil.Error:  # the process has just ended
                continue
        peak = max(peak, resident / 2**30)
        time.sleep(TICK_S)
    if driver.returncode:
        raise RuntimeError(f"the run of {size} ended with exit code {driver.returncode}")
    times = [path.stat().st_mtime for part in ("scores", "noise") for path in (folder / "run" / part).glob("*.arrow")]
    return max(times) - min(times), peak


def main() -> None:
    """Print one row per study and the fit, and plot both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chart", type=Path, default=Path("growth.png"), help="path of the chart")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps")
    args = parser.parse_args()
    table = Table(title=f"embedded base, {args.steps} steps, one worker")
    for name in ("growing", "prompts", "adapters", "seeds", "images", "seconds", "GiB"):
        table.add_column(name, justify="right")
    measured: dict[Size, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        unet = load(PIPELINE).unet
        most_adapters = max(size.adapters for sizes in SIZES.values() for size in sizes)
        adapters = [write_lora(random_lora(unet, k), root / f"lora-{k}") for k in range(most_adapters)]
        for growing, sizes in SIZES.items():
            for size in sizes:
                if size not in measured:
                    measured[size] = run(size, adapters, args.steps, root / f"run-{len(measured)}")
                seconds, memory = measured[size]
                cells = (size.prompts, size.adapters, size.seeds, size.images)
                table.add_row(growing, *(str(cell) for cell in cells), f"{seconds:.1f}", f"{memory:.2f}")
    images = [size.images for size in measured]
    fit = linregress(images, [seconds for seconds, _ in measured.values()])
    console = Console(width=120, highlight=False)
    console.print(table)
    console.print(
        f"seconds = {fit.intercept:.1f} + {fit.slope:.4f} x images, R² = {fit.rvalue**2:.4f} over {len(measured)} runs"
    )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for growing, sizes in SIZES.items():
        axes.scatter([s.images for s in sizes], [measured[s][0] for s in sizes], label=f"more {growing}")
    ends = [0, max(images)]
    axes.plot(ends, [fit.intercept + fit.slope * x for x in ends], color="gray", label=f"fit, R² = {fit.rvalue**2:.3f}")
    axes.set(xlabel="images (prompts x seeds x models)", ylabel="seconds, first commit to last", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(args.chart, dpi=120)
    console.print(f"chart: {args.chart}")


if __name__ == "__main__":
    main()
