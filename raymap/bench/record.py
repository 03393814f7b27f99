"""The record of a bench: an Arrow file that grows row by row, and a table of medians."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
from rich import box
from rich.table import Table

from raymap.bench.setups import Setup
from raymap.store.files import write_atomically
from raymap.store.folder import arrow_bytes

STUDY_IMAGES = 92_000
"""The paper's study: 200 prompts x 10 seeds x (45 adapters and the base)."""
PEAK_NAMES = {"cpu": "a measured matrix product", "cuda": "the data sheet's dense peak"}
VERSIONED = ("raymap", "torch", "diffusers")


def _field(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


def _from_plain(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    where = "first block against the plain setting's; null: the setting is plain, or the plain one exceeds the memory"
    return _field(name, kind, f"{meaning}; {where}", nullable=True)


ROWS = pa.schema(
    [
        _field("key", pa.string(), "digest of the setup"),
        _field("repeat", pa.int64(), "number of the repeat, from 0"),
        _field("base", pa.string(), "base of the setup, or random:SIZE"),
        _field("resolution", pa.int64(), "side of the images in pixels; null: the base's own", nullable=True),
        _field("steps", pa.int64(), "sampling steps"),
        _field("guidance_scale", pa.float64(), "guidance scale; 1 is none"),
        _field("dtype", pa.string(), "dtype in which the model computes"),
        _field("batch_size", pa.int64(), "images per batch"),
        _field("compile", pa.string(), "mode of torch.compile, or none"),
        _field("channels_last", pa.bool_(), "memory layout of denoiser and decoder"),
        _field("attention", pa.string(), "torch's attention backend; auto: torch chooses"),
        _field("device", pa.string(), "cpu or cuda"),
        _field("workers", pa.int64(), "processes that draw at the same time"),
        _field("threads", pa.int64(), "threads per worker"),
        _field("scorer", pa.string(), "inline: the worker scores its images; apart: a process beside it does"),
        _field("adapters", pa.int64(), "adapters under which a block is drawn"),
        _field("clip", pa.string(), "CLIP model"),
        _field("lpips", pa.string(), "LPIPS backbone"),
        _field("device_name", pa.string(), "name of the device"),
        *(_field(name, pa.string(), "version") for name in VERSIONED),
        _field("images", pa.int64(), "images drawn and scored by all workers"),
        _field("seconds", pa.float64(), "from the first worker's start to the last one's end"),
        _field("images_per_s", pa.float64(), "images / seconds, which include swapping, scoring and writing"),
        _field("image_steps_per_s", pa.float64(), "images_per_s x steps"),
        _field("image_flops", pa.float64(), "FLOPs of one image's denoiser passes and decoding, attention included"),
        _field("flops_per_s", pa.float64(), "images_per_s x image_flops"),
        _field(
            "peak_flops_per_s",
            pa.float64(),
            "peak of the devices; for CPUs measured by a matrix product",
            nullable=True,
        ),
        _field("peak_share", pa.float64(), "flops_per_s / peak_flops_per_s", nullable=True),
        _field(
            "joules_per_image",
            pa.float64(),
            "energy of the GPUs, or of all processors; null: not counted",
            nullable=True,
        ),
        _field("swap_s", pa.float64(), "mean seconds per swap, swaps to the base included"),
        _field("swap_share", pa.float64(), "share of the workers' seconds: swapping"),
        _field("draw_share", pa.float64(), "share of the workers' seconds: drawing"),
        _field(
            "score_share", pa.float64(), "share of the workers' seconds: scoring and writing, or waiting for a scorer"
        ),
        _field("memory_bytes", pa.int64(), "peak memory of a worker; on a GPU that of its tensors"),
        _field(
            "startup_s",
            pa.float64(),
            "from starting the processes until the first batch is drawn, compilation included",
        ),
        _from_plain("pixel_difference", pa.int64(), "largest difference of a uint8 value"),
        _from_plain("pixel_difference_mean", pa.float64(), "mean absolute difference of uint8 values"),
        _from_plain("clip_difference", pa.float64(), "largest difference of an image's CLIP cosine"),
        _from_plain("lpips_difference", pa.float64(), "largest LPIPS between the two drawings of an image"),
    ]
)


class Record:
    """The rows measured so far, kept in `bench.arrow` of a folder together with rows of other versions and setups."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bench.arrow"
        self.versions = {name: version(name) for name in VERSIONED}
        self.rows: list[dict[str, Any]] = []
        if self.path.exists():
            self.rows = pa.ipc.open_file(self.path.read_bytes()).read_all().to_pylist()

    def missing(self, setup: Setup, repeats: int) -> list[int]:
        """Return the repeats of a setup, counted from 0, that have not been measured with these versions."""
        measured = {row["repeat"] for row in self.of(setup)}
        return [repeat for repeat in range(repeats) if repeat not in measured]

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows and rewrite the file."""
        self.rows += [row | self.versions for row in rows]
        write_atomically(self.path, arrow_bytes(pa.Table.from_pylist(self.rows, ROWS)))

    def of(self, setup: Setup) -> list[dict[str, Any]]:
        """Return the rows of a setup that were measured with these versions."""
        wanted = self.versions | {"key": setup.key}
        return [row for row in self.rows if wanted.items() <= row.items()]


def varied(setups: Sequence[Setup]) -> list[str]:
    """Return the keys in which setups differ; for a single setup, base and batch size."""
    names = [name for name in Setup.model_fields if len({getattr(setup, name) for setup in setups}) > 1]
    return names or ["base", "batch_size"]


def label(setup: Setup, names: Sequence[str]) -> str:
    """Return a setup's label: the values of the named keys."""
    return ", ".join(f"{name.replace('_', ' ')} {getattr(setup, name)}" for name in names)


def span(values: Sequence[float]) -> str:
    """Return the smallest and the largest value as text; an empty one for a single value."""
    return f"{min(values):.3g}–{max(values):.3g}" if len(values) > 1 else ""


def table(record: Record, setups: Sequence[Setup], price: float | None) -> Table:
    """Return one row per setup: medians over repeats with minimum and maximum; `price` is that of a worker's hour.

    A column that is empty for every setup is left out.
    """
    names = varied(setups)
    medians = Table(title=_title(record, setups), box=box.SIMPLE_HEAD)
    lines = [_cells(setup, rows, names, price) for setup, rows in _measured(record, setups)]
    shown = [column for column in lines[0] if any(line[column] for line in lines)]
    for column in shown:
        medians.add_column(column, justify="right")
    for line in lines:
        medians.add_row(*(line[column] for column in shown))
    return medians


def _cells(setup: Setup, rows: list[dict[str, Any]], names: Sequence[str], price: float | None) -> dict[str, str]:
    """Return a setup's cells by column; an unknown one is empty."""

    def values(name: str, scale: float = 1.0) -> list[float]:
        return [row[name] * scale for row in rows if row[name] is not None]

    def middle(name: str, form: str, scale: float = 1.0) -> str:
        column = values(name, scale)
        return format(median(column), form) if column else ""

    rate = median(values("images_per_s"))
    pixels = [middle("pixel_difference", ".0f"), middle("pixel_difference_mean", ".2g")]
    scores = [middle("clip_difference", ".1g"), middle("lpips_difference", ".1g")]
    return {
        **{name.replace("_", "\n"): str(getattr(setup, name)) for name in names},
        "images/s": f"{rate:.3g}",
        "min–\nmax": span(values("images_per_s")),
        "image-\nsteps/s": middle("image_steps_per_s", ".3g"),
        "TFLOP/s": middle("flops_per_s", ".3g", 1e-12),
        "share\nof peak": f"{share} %" if (share := middle("peak_share", ".0f", 100)) else "unknown",
        "J per\nimage": middle("joules_per_image", ".3g"),
        "swap,\nms": middle("swap_s", ".2g", 1000),
        "scoring": f"{middle('score_share', '.0f', 100)} %",
        "memory,\nGiB": f"{max(values('memory_bytes', 2**-30)):.2f}",
        "start-up,\ns": middle("startup_s", ".1f"),
        "pixels differ,\nmax (mean)": f"{pixels[0]} ({pixels[1]})" if pixels[0] else "",
        "CLIP, LPIPS\ndiffer": ", ".join(scores) if scores[0] else "",
        f"{STUDY_IMAGES:,}\nimages, h": f"{STUDY_IMAGES / rate / 3600:.3g}",
        "cost of\n1,000": "" if price is None else f"{1000 / rate / 3600 * price * setup.workers:.2g}",
    }


def _title(record: Record, setups: Sequence[Setup]) -> str:
    devices = sorted({row["device_name"] for _, rows in _measured(record, setups) for row in rows})
    peaks = sorted({PEAK_NAMES[setup.device] for setup in setups})
    versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
    return f"{', '.join(devices)}; {versions}; peak: {', '.join(peaks)}"


def _measured(record: Record, setups: Sequence[Setup]) -> Iterator[tuple[Setup, list[dict[str, Any]]]]:
    for setup in setups:
        if rows := record.of(setup):
            yield setup, rows
