"""How a run's time and memory grow with prompts, adapters and seeds: real runs of the embedded base, and a fit.

    python -m benchmarks.growth [--picture growth.png] [--steps 4]

Each of the three is raised alone, from a study of 4 prompts, 2 adapters and 2 seeds. Seconds are those from the first
batch's commit to the last one's, without start-up, training, statistics and report; memory is the most that the driver
and its children held together.
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
class Load:
    """A study's size."""

    prompts: int = 4
    adapters: int = 2
    seeds: int = 2

    @property
    def images(self) -> int:
        """Images, the base's included."""
        return self.prompts * self.seeds * (1 + self.adapters)


SIZES = {
    "prompts": [replace(Load(), prompts=n) for n in (4, 8, 16, 32)],
    "adapters": [replace(Load(), adapters=n) for n in (2, 5, 11, 23)],
    "seeds": [replace(Load(), seeds=n) for n in (2, 4, 8, 16)],
}


def run(size: Load, adapters: list[Path], steps: int, folder: Path) -> tuple[float, float]:
    """Run a study of a size; return the seconds and the most GiB held."""
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
    most = 0.0
    while driver.poll() is None:
        held = 0
        for process in (driver, *driver.children(recursive=True)):
            try:
                held += process.memory_full_info().pss
            except psutil.Error:  # it has just ended
                continue
        most = max(most, held / 2**30)
        time.sleep(TICK_S)
    if driver.returncode:
        raise RuntimeError(f"{size}: exit code {driver.returncode}")
    times = [path.stat().st_mtime for part in ("scores", "noise") for path in (folder / "run" / part).glob("*.arrow")]
    return max(times) - min(times), most


def main() -> None:
    """Print a row a study and the fit, and draw both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("growth.png"))
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    table = Table(title=f"embedded base, {args.steps} steps, one worker")
    for name in ("raised", "prompts", "adapters", "seeds", "images", "seconds", "GiB"):
        table.add_column(name, justify="right")
    found: dict[Load, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        unet = load(PIPELINE).unet
        most = max(size.adapters for sizes in SIZES.values() for size in sizes)
        adapters = [write_lora(random_lora(unet, k), root / f"lora-{k}") for k in range(most)]
        for raised, sizes in SIZES.items():
            for size in sizes:
                if size not in found:
                    found[size] = run(size, adapters, args.steps, root / f"run-{len(found)}")
                seconds, held = found[size]
                cells = (size.prompts, size.adapters, size.seeds, size.images)
                table.add_row(raised, *(str(cell) for cell in cells), f"{seconds:.1f}", f"{held:.2f}")
    images = [size.images for size in found]
    fit = linregress(images, [drawing for drawing, _ in found.values()])
    console = Console(width=120, highlight=False)
    console.print(table)
    console.print(
        f"seconds = {fit.intercept:.1f} + {fit.slope:.4f} x images, R² = {fit.rvalue**2:.4f} over {len(found)} runs"
    )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for raised, sizes in SIZES.items():
        axes.scatter([s.images for s in sizes], [found[s][0] for s in sizes], label=f"more {raised}")
    ends = [0, max(images)]
    axes.plot(ends, [fit.intercept + fit.slope * x for x in ends], color="gray", label=f"fit, R² = {fit.rvalue**2:.3f}")
    axes.set(xlabel="images (prompts x seeds x models)", ylabel="seconds, first commit to last", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(args.picture, dpi=120)
    console.print(f"drawn: {args.picture}")


if __name__ == "__main__":
    main()
