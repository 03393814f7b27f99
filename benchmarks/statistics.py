"""Measures how long the statistics of many score rows take, how much memory they need, and how both grow.

    python -m benchmarks.statistics [--rows 100000 1000000 10000000] [--keep DIR]

Every size is a run folder of synthetic scores (raymap/testing/large_runs.py). A process of its own reduces each folder
to map.arrow, shifts.arrow and statistics.json. The table has its wall time, the processor time of all its threads and
its peak resident memory. The growth is the exponent b of processor time ~ rows^b since the size before.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from raymap.testing.large_runs import SEEDS, shape, write_large_run

REDUCE = (
    "import sys; from pathlib import Path; from raymap.analysis.reduce import reduce_run; reduce_run(Path(sys.argv[1]))"
)


def measure(folder: Path) -> tuple[float, float, float]:
    """Reduce a run folder in a process of its own; return seconds of wall and processor time, and peak GiB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", REDUCE, str(folder)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the process ended with exit code {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Print time, memory and growth for every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--keep", type=Path, help="write the run folders here and keep them")
    args = parser.parse_args()
    console = Console(width=120)
    table = Table(title=f"scores to map, shift tests and statistics, {os.cpu_count()} processors")
    for name in ("rows", "prompts", "adapters", "files", "wall s", "processor s", "peak GiB", "growth"):
        table.add_column(name, justify="right")
    before: tuple[int, float] | None = None
    with tempfile.TemporaryDirectory(prefix="raymap-statistics-") as temporary:
        for rows in sorted(args.rows):
            folder = (args.keep or Path(temporary)) / str(rows)
            prompts, adapters = shape(rows)
            if not (folder / "noise.arrow").exists():
                write_large_run(folder, rows)
            exact = prompts * adapters * SEEDS
            wall, processor, peak = measure(folder)
            growth = f"{math.log(processor / before[1]) / math.log(exact / before[0]):.2f}" if before else "–"
            table.add_row(f"{exact:,}", f"{prompts:,}", str(adapters), str(adapters), f"{wall:.1f}", f"{processor:.1f}",
                          f"{peak:.2f}", growth)  # fmt: skip
            before = exact, processor
    console.print(table)


if __name__ == "__main__":
    main()
