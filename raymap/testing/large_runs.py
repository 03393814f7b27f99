"""Writes run folders with a given number of synthetic score rows, column by column.

Each folder keeps the contract: one file per adapter in `scores/`, all columns and digests, and three seed pairs
per prompt in `noise.arrow`. Subjects of three categories have three methods each (Textual Inversion an exact identity),
and there are two identity controls.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa

from raymap.store.folder import arrow_bytes
from raymap.store.schema import NOISE, SCORES, stamped
from raymap.study.suite import CATEGORIES

SEEDS = 10
PAIRS = 3
CONTROLS = 2
KINDS = ("face", "object", "style")
SIZES = {"textual_inversion": 0.0, "lora": 0.01, "custom_diffusion": 0.02, "identity": 0.0}
"""Each method's standard deviation of the difference in cosine; that of two seeds of the base is 0.028."""


def shape(rows: int) -> tuple[int, int]:
    """Return the numbers of prompts and adapters for about `rows` rows: four prompts per adapter."""
    adapters = round(math.sqrt(rows / SEEDS / 4))
    return round(rows / SEEDS / adapters), adapters


def adapter_names(count: int) -> list[tuple[str, str, str, str]]:
    """Return the name, method, subject and subject category of `count` adapters."""
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


def write_large_run(folder: Path, rows: int) -> int:
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
