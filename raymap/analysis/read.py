"""Reads a run folder: its scores and noise in streams, its map, statistics, study and features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import yaml

from raymap.analysis.statistics import Statistics
from raymap.errors import InputError
from raymap.store.files import files_in, local_copy, read_each, read_file, read_if_there
from raymap.store.schema import FEATURES, NOISE, SCORES

ADAPTER = ("adapter", "method", "subject", "subject_category")
PROMPT = ("prompt_id", "prompt_category")
KEY = ("prompt_id", "adapter")
"""What names a cell of the map."""
MEASURED = ("clip_base", "clip_adapted", "lpips")
RIGHT = "keep the right one"


def read_scores(folder: Path) -> pl.DataFrame:
    """Return all columns of a run folder's scores (schema SCORES), checked and sorted as `stream_scores` does.

    Equal rows count once.

    Raises:
        InputError: as `stream_scores`.
    """
    stream_scores(folder)
    where = folder / "scores"
    with local_copy(where) as copy:
        rows = read_tables(files_in(copy, ".arrow"), SCORES, where)
    return rows.unique(maintain_order=True).sort("prompt_id", "adapter", "seed")


def stream_scores(folder: Path, part: str = "scores") -> pl.DataFrame:
    """Read every `scores/*.arrow` of a run folder, sorted by prompt, adapter and seed.

    Files are streamed. Of digests and devices only 64-bit hashes of each row, of its base image and of its device are
    kept, and they are compared only between rows of one key. Names are enumerations of 4 bytes. The frame takes about
    70 bytes per row.

    Args:
        part: the subfolder to read; the scores of variants of adapters are in `interventions`.

    Returns:
        One row per adapter, prompt and seed, with the columns of schema SCORES except digests and device; names are
        `pl.Enum`. Equal rows count once.

    Raises:
        InputError: there are no rows, a file is not an Arrow file or has other columns than the contract, or rows
            contradict each other: two different rows for one key, two descriptions of one adapter or prompt, or two
            base images of one prompt and seed from one device.
    """
    where = folder / part
    with local_copy(where) as copy:
        files = files_in(copy, ".arrow")
        check_columns(files, SCORES, where)
        try:
            return _read(pl.scan_ipc(files), where)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(str(where), f"cannot be read ({error})", "run the study again") from error


def _read(rows: pl.LazyFrame, where: Path) -> pl.DataFrame:
    names: dict[str, pl.Enum] = {}
    for columns in (ADAPTER, PROMPT):
        found = rows.select(columns).unique().collect(engine="streaming")
        if found.is_empty():
            raise InputError(str(where), "holds no row", "give a folder that `raymap run` wrote")
        if sum(found.null_count().row(0)):
            raise InputError(str(where), f"has rows without {' or '.join(columns)}", "write every name")
        if twice := found.filter(found[columns[0]].is_duplicated())[columns[0]].sort().to_list():
            raise InputError(str(where), f"describes {twice[0]!r} in two ways", RIGHT)
        names |= {column: pl.Enum(found[column].unique().sort()) for column in columns}
    frame = rows.select(
        *(pl.col(name).cast(kind) for name, kind in names.items()), "seed", *MEASURED, "drawn",
        base=pl.col("base_sha256").hash(), device=pl.col("device").hash(), row=pl.struct(SCORES.names).hash(),
    ).collect(engine="streaming")  # fmt: skip
    cell = pl.col("prompt_id").to_physical().cast(pl.UInt64) * len(names["adapter"].categories)
    seeds = frame["seed"].unique().sort()
    if seeds.null_count():
        raise InputError(str(where), "has rows without seed", "write every seed")
    key = frame.select(
        (cell + pl.col("adapter").to_physical()) * len(seeds) + pl.Series(seeds.search_sorted(frame["seed"]))
    ).to_series()
    order = key.arg_sort()
    frame, key = frame[order], key[order]
    again = (key == key.shift(1)).fill_null(False)
    if again.any():
        differ = again & (frame["row"] != frame["row"].shift(1))
        if differ.any():
            row = frame.filter(differ).select("adapter", "prompt_id", "seed").row(0)
            raise InputError(str(where), f"holds two different rows for {row}", RIGHT)
        frame = frame.filter(~again)
    # A block that moves to another device has its base drawn again there, so each pair is from one device.
    bases = frame.group_by("prompt_id", "seed", "device").agg(two=pl.col("base").min() != pl.col("base").max())
    if bases["two"].any():
        raise InputError(str(where), "pairs one image with two different base images", "run it again into a new folder")
    return frame.drop("base", "device", "row")


def read_noise(folder: Path) -> pl.DataFrame:
    """Read a run folder's `noise.arrow` (schema NOISE), one row per pair of base seeds.

    Raises:
        InputError: the file is missing, or its columns differ from the contract.
    """
    where = folder / "noise.arrow"
    content = next(read_each([where]))
    return read_tables([] if content is None else [content], NOISE, where)


def read_tables(sources: Sequence[Path | bytes], schema: pa.Schema, where: Path) -> pl.DataFrame:
    """Read Arrow IPC files, or the contents of such files, with a schema's columns as one table.

    Raises:
        InputError: there is no file, one is not an Arrow file, or its columns differ. `where` names what has no path.
    """
    check_columns(sources, schema, where)
    return pl.concat([pl.read_ipc(source) for source in sources])


def check_columns(sources: Sequence[Path | bytes], schema: pa.Schema, where: Path) -> None:
    """Compare the columns of Arrow IPC files, or of the contents of such files, with a schema of the contract.

    Raises:
        InputError: there is no file, one is not an Arrow file, or its columns differ. `where` names what has no path.
    """
    if not sources:
        raise InputError(str(where), "is missing", "give a folder that `raymap run` wrote")
    asked = {name: str(kind) for name, kind in pl.DataFrame(pl.from_arrow(schema.empty_table())).schema.items()}
    for source in sources:
        name = str(source if isinstance(source, Path) else where)
        try:
            held = {
                name: str(kind)
                for name, kind in pl.read_ipc_schema(BytesIO(source) if isinstance(source, bytes) else source).items()
            }
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(name, f"is not an Arrow file ({error})", "delete it and run the study again") from error
        if list(held) != list(asked):
            raise InputError(name, f"has columns {list(held)}", f"the contract asks for {list(asked)}")
        if odd := {column: kind for column, kind in held.items() if kind != asked[column]}:
            wanted = {column: asked[column] for column in odd}
            raise InputError(name, f"has columns of type {odd}", f"the contract asks for {wanted}")


def read_study(folder: Path) -> dict[str, Any]:
    """Return the keys of the resolved study; none if the folder has only scores and noise."""
    keys: dict[str, Any] = yaml.safe_load((read_if_there(folder / "study.yaml") or b"{}").decode())
    return keys


def read_map(folder: Path) -> pl.DataFrame:
    """Return a run folder's map (schema MAP)."""
    return pl.read_ipc(read_file(folder / "map.arrow"))


def read_statistics(folder: Path) -> Statistics:
    """Return what a run folder's statistics.json holds."""
    content: Statistics = json.loads(read_file(folder / "statistics.json"))
    return content


def read_features(folder: Path) -> pl.DataFrame | None:
    """Return a run folder's image features (schema FEATURES); None if it keeps none.

    Raises:
        InputError: a file is not an Arrow file or has other columns.
    """
    with local_copy(folder / "features") as copy:
        files = files_in(copy, ".arrow")
        return read_tables(files, FEATURES, folder / "features") if files else None
