"""Measures how long the statistics of many score rows take, how much memory they need, and how both grow.

    python -m benchmarks.statistics [--rows 100000 1000000 10000000] [--keep DIR]

Every size is a run folder that keeps the contract: one file per adapter in `scores/`, with all columns and digests, and
three seed pairs per prompt in `noise.arrow`. Subjects of three categories have three methods each (Textual Inversion is
an exact identity), and there are two identity controls. A process of its own reduces each folder to map.arrow,
shifts.arrow and statistics.json. The table has its wall time, the processor time of all its threads and its peak
resident memory. The growth is the exponent b of processor time ~ rows^b since the size before.
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

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from raymap.store.folder import arrow_bytes
from raymap.store.schema import NOISE, SCORES, stamped

SEEDS = 10
PAIRS = 3
CONTROLS = 2
CATEGORIES = ("people", "animals", "objects", "scenes", "styles", "abstract")
KINDS = ("face", "object", "style")
SIZES = {"textual_inversion": 0.0, "lora": 0.01, "custom_diffusion": 0.02, "identity": 0.0}
"""Standard deviation of a pair's difference in cosine; two seeds of the base differ by .028."""
REDUCE = (
    "import sys; from pathlib import Path; from raymap.analysis.reduce import reduce_run; reduce_run(Path(sys.argv[1]))"
)


def shape(rows: int) -> tuple[int, int]:
    """Return the prompts and adapters of about `rows` rows: four prompts per adapter, as in 2,000 x 500 x 10."""
    adapters = round(math.sqrt(rows / SEEDS / 4))
    return round(rows / SEEDS / adapters), adapters


def adapter_names(count: int) -> list[tuple[str, str, str, str]]:
    """Return (adapter, method, subject, subject category) of `count` adapters."""
    named = [(f"identity-{k}", "identity", f"control-{k}", "control") for k in range(CONTROLS)]
    methods = ("textual_inversion", "lora", "custom_diffusion")
    for k in range(count - CONTROLS):
        subject, method = k // 3, methods[k % 3]
        named.append((f"subject-{subject:03d}-{method}", method, f"subject-{subject:03d}", KINDS[subject % 3]))
    return named


def digests(rng: np.random.Generator, count: int) -> pa.Array:
    """Return `count` random strings of 64 hexadecimal digits."""
    text = rng.bytes(32 * count).hex().encode()
    offsets = np.arange(0, 64 * count + 1, 64, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def write_run(folder: Path, rows: int) -> int:
    """Write `scores/` and `noise.arrow` with about `rows` rows of scores; return their exact number."""
    rng = np.random.default_rng(0)
    prompts, adapters = shape(rows)
    ids = np.array([f"prompt-{p:05d}" for p in range(prompts)])
    categories = np.array([CATEGORIES[p % 6] for p in range(prompts)])
    cells = prompts * SEEDS
    base, base_digests = rng.normal(0.25, 0.02, cells).astype(np.float32), digests(rng, cells)
    frailty = np.repeat(rng.gamma(4, 0.25, prompts), SEEDS)
    (folder / "scores").mkdir(parents=True)
    for number, (adapter, method, subject, kind) in enumerate(adapter_names(adapters)):
        size = SIZES[method] * frailty
        columns = [
            *(pa.array([name]).take(pa.array(np.zeros(cells, np.int8))) for name in (adapter, method, subject, kind)),
            np.repeat(ids, SEEDS), np.repeat(categories, SEEDS), np.tile(np.arange(SEEDS), prompts), base,
            (base + size * rng.normal(0, 1, cells)).astype(np.float32),
            (np.abs(rng.normal(10, 2, cells)) * size).astype(np.float32),
            base_digests, digests(rng, cells) if SIZES[method] else base_digests,
            np.full(cells, method != "textual_inversion"),
            pa.array(["cuda"]).take(pa.array(np.zeros(cells, np.int8))),
        ]  # fmt: skip
        table = pa.Table.from_arrays(
            [pa.array(column, kind) for column, kind in zip(columns, SCORES.types, strict=True)],
            schema=stamped(SCORES, "synthetic"),
        )
        (folder / "scores" / f"{number:05d}.arrow").write_bytes(arrow_bytes(table))
    n = prompts * PAIRS
    noise = [
        np.repeat(ids, PAIRS), np.repeat(categories, PAIRS), np.tile(np.arange(0, 2 * PAIRS, 2), prompts),
        np.tile(np.arange(1, 2 * PAIRS, 2), prompts), np.abs(rng.normal(0, 0.028, n)), rng.uniform(0.2, 0.6, n),
    ]  # fmt: skip
    arrays = [pa.array(column).cast(kind) for column, kind in zip(noise, NOISE.types, strict=True)]
    (folder / "noise.arrow").write_bytes(arrow_bytes(pa.Table.from_arrays(arrays, schema=stamped(NOISE, "synthetic"))))
    return cells * adapters


def measure(folder: Path) -> tuple[float, float, float]:
    """Reduce a run folder in a process of its own; return wall and processor seconds, and peak memory in GiB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", REDUCE, str(folder)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"reducing {folder} ended with exit code {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Print time, memory and growth for every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 10**7], help="numbers of rows of scores")
    parser.add_argument("--keep", type=Path, help="folder that keeps the run folders")
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
                write_run(folder, rows)
            exact = prompts * adapters * SEEDS
            wall, processor, peak = measure(folder)
            growth = f"{math.log(processor / before[1]) / math.log(exact / before[0]):.2f}" if before else "–"
            table.add_row(f"{exact:,}", f"{prompts:,}", str(adapters), str(adapters), f"{wall:.1f}", f"{processor:.1f}",
                          f"{peak:.2f}", growth)  # fmt: skip
            before = exact, processor
    console.print(table)


if __name__ == "__main__":
    main()
