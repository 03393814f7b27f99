"""Run folders reduced to what results rest on: small enough to commit, and readable by raymap's own functions.

The map, tests, statistics, interventions, the cells and correlations of attention, and the factorial test are computed
again from a reduced folder. Some results are kept as they were measured, because the rows they rest on are too large:
the distances between image features (distances.arrow), and attention by layer and of the controls
(attention_layers.arrow, attention_control.arrow).
"""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePath
from typing import Any, cast

import polars as pl
import pyarrow as pa
import yaml

from raymap.analysis.agreement import agreement
from raymap.analysis.map import measured, with_entanglement
from raymap.analysis.read import read_map
from raymap.analysis.reduce import reduce_run
from raymap.analysis.statistics import DistanceRow
from raymap.analysis.why.attention import of_cells
from raymap.analysis.why.factorial import reduce_factorial
from raymap.analysis.why.interventions import reduce_interventions
from raymap.analysis.why.statistics import FactorialSummary
from raymap.errors import InputError
from raymap.store.files import as_json, files_in, write_atomically
from raymap.store.schema import ATTENTION_CELLS, stamped

RECOMPUTED = ("statistics.json", "interventions.json", "attention.json", "factorial.json")
RECORD = ("study", "digest", "images", "versions", "adapters")
SESSION = ("started", "training_s", "interventions", "drawn", "drawing_s", "swap_s", "draw_s", "score_s", "seconds")
WORKER = ("device", "threads")
PRIVATE = ("references", "path", "custom", "accelerator_type")
"""Keys of a study that name a machine or its files."""

_TEXTS = ("adapter", "prompt_category", "features", "metric", "design", "method", "reason")
_WHOLE = ("n", "prompts")
DISTANCES = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS[:5]),
        *((name, pa.float64()) for name in ("value", "low", "high")),
        *((name, pa.int64()) for name in _WHOLE),
        ("null", pa.float64()),
        *((name, pa.string()) for name in _TEXTS[5:]),
    ]
)
LAYERS = pa.schema(
    [
        *((name, pa.string()) for name in ("method", "protocol", "layer")),
        ("bin", pa.int64()),
        ("timestep", pa.float64()),
        ("tokens", pa.string()),
        *((name, pa.float64()) for name in ("delta", "relative", "js")),
    ]
)
ATTENTION_CONTROL = pa.schema(
    [
        *((name, pa.bool_()) for name in ("present", "exact")),
        *((name, pa.float64()) for name in ("max_delta", "max_js")),
        *((name, pa.int64()) for name in ("rows", "computed")),
    ]
)
KEPT = {
    "distances.arrow": ("statistics.json", "distances", DISTANCES),
    "attention_layers.arrow": ("attention.json", "layers", LAYERS),
    "attention_control.arrow": ("attention.json", "identity_control", ATTENTION_CONTROL),
}
"""Arrow file -> the JSON file and the key that its rows come from, and their schema."""


def write_packed(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file as one batch, with buffers compressed by zstd."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table.combine_chunks())
    write_atomically(path, sink.getvalue().to_pybytes())


def read_table(path: Path) -> pa.Table:
    """Return an Arrow IPC file as a table, with the metadata of its schema."""
    with pa.ipc.open_file(path) as file:
        return file.read_all()


def collect(source: Path, target: Path) -> None:
    """Write the reduced form of a run folder, and recompute its results.

    Raises:
        InputError: the run has no statistics, or its results are not what its rows give when they are recomputed.
    """
    if not (source / "statistics.json").exists():
        raise InputError(str(source), "holds no statistics", "give the folder of a run that has finished")
    for part in ("scores", "interventions"):
        if files := files_in(source / part, ".arrow"):
            write_packed(target / part / "all.arrow", pa.concat_tables([read_table(file) for file in files]))
    for name in ("noise.arrow", "attention_cells.arrow"):
        if (source / name).exists():
            write_packed(target / name, read_table(source / name))
    for name, (of, key, schema) in KEPT.items():
        if (source / of).exists():
            held = read_json(source / of)[key]
            rows = [held] if isinstance(held, dict) else held
            write_packed(target / name, pa.Table.from_pylist(rows, schema))
    write_atomically(target / "study.yaml", public_study((source / "study.yaml").read_text(encoding="utf-8")))
    write_atomically(target / "run.json", as_json(public_record(read_json(source / "run.json"))))
    recompute(target, factorial=(source / "factorial.json").exists())
    for name in RECOMPUTED:
        if (source / name).exists() and not same(read_json(source / name), read_json(target / name)):
            problem = "differs from what the run's rows give when they are reduced again"
            raise InputError(str(source / name), problem, f"write it with `raymap stats {source}`")


def recompute(folder: Path, factorial: bool | None = None) -> None:
    """Compute the files RECOMPUTED of a reduced run folder, and their Arrow files, again and in place.

    Args:
        factorial: whether to do the test of composition; by default, if there is a factorial.json.
    """
    statistics = reduce_run(folder)
    rows = read_table(folder / "distances.arrow").to_pylist()
    statistics["distances"] = cast(list[DistanceRow], rows)
    cells = with_entanglement(measured(read_map(folder)))
    statistics["distance_agreement"] = agreement(statistics["distances"], cells)
    write_atomically(folder / "statistics.json", as_json(statistics))
    if files_in(folder / "interventions", ".arrow"):
        reduce_interventions(folder)
    if (folder / "attention_cells.arrow").exists():
        _reduce_attention(folder)
    if (folder / "factorial.json").exists() if factorial is None else factorial:
        reduce_factorial(folder)
    for path in files_in(folder, ".arrow"):
        write_packed(path, read_table(path))


def _reduce_attention(folder: Path) -> None:
    """Join the map's E_sem and E_per to the cells of attention again, and write attention.json."""
    held = read_table(folder / "attention_cells.arrow")
    digest = (held.schema.metadata or {}).get(b"raymap.digest", b"").decode()
    beside = read_map(folder).select("prompt_id", "adapter", "e_sem", "e_per")
    cells = pl.DataFrame(pl.from_arrow(held)).drop("e_sem", "e_per")
    cells = cells.join(beside, on=["prompt_id", "adapter"], how="inner", maintain_order="left")
    cells = cells.select(ATTENTION_CELLS.names)
    write_packed(folder / "attention_cells.arrow", cells.to_arrow().cast(stamped(ATTENTION_CELLS, digest)))
    control = read_table(folder / "attention_control.arrow").to_pylist()[0]
    if not control["present"]:
        del control["computed"]
    layers = read_table(folder / "attention_layers.arrow").to_pylist()
    found = {"digest": digest, "identity_control": control, **of_cells(cells), "layers": layers}
    write_atomically(folder / "attention.json", as_json(found))


def public_study(text: str) -> bytes:
    """Return a resolved study as YAML, without references, paths and names of machines."""
    return yaml.safe_dump(_public(yaml.safe_load(text)), sort_keys=False, allow_unicode=True).encode()


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(held) for key, held in value.items() if key not in PRIVATE and not _is_place(held)}
    if isinstance(value, list):
        return [_public(held) for held in value if not _is_place(held)]
    return value


def _is_place(value: Any) -> bool:
    """Return whether a value is an absolute path or a URL."""
    return isinstance(value, str) and (PurePath(value).is_absolute() or "://" in value)


def public_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return what results need of run.json: digests, versions, and what each session did on what kind of device."""
    sessions = [
        {key: session[key] for key in SESSION if key in session}
        | {"workers": [{key: worker[key] for key in WORKER} for worker in session.get("workers", ())]}
        for session in record.get("sessions", ())
    ]
    return {key: record[key] for key in RECORD if key in record} | {"sessions": sessions}


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return held


def read_factorial(path: Path) -> FactorialSummary:
    """Return what a factorial.json holds."""
    return cast(FactorialSummary, read_json(path))


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal; floats to nine digits, because sums differ in last bits by machine."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return (
            one == other
            or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-14)
            or (math.isnan(one) and math.isnan(other))
        )
    return bool(one == other)
