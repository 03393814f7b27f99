"""Reduces a run folder's scores to map.arrow, shifts.arrow, changes.arrow, statistics.json and verdict.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from raymap.analysis.agreement import agreement, distances
from raymap.analysis.changes import change_tests
from raymap.analysis.decide.verdict import write_verdict
from raymap.analysis.judged import reduce_judged
from raymap.analysis.map import entanglement_map, measured, noise_floor, with_entanglement
from raymap.analysis.power import power
from raymap.analysis.read import read_features, read_noise, read_study, stream_scores
from raymap.analysis.shifts import shift_tests
from raymap.analysis.statistics import Missing, Statistics
from raymap.analysis.summary import summarize
from raymap.store.files import as_json, files_in, read_each, read_file, read_if_there, write_atomically
from raymap.store.folder import arrow_bytes
from raymap.store.schema import CHANGES, MAP, SHIFTS, stamped


def merge_noise(parts: Path, target: Path) -> None:
    """Join the noise parts of all blocks into one `noise.arrow`, in the order of the blocks."""
    contents = read_each(files_in(parts, ".arrow"))
    tables = [pa.ipc.open_file(content).read_all() for content in contents if content is not None]
    write_atomically(target, arrow_bytes(pa.concat_tables(tables)))


def reduce_run(folder: Path) -> Statistics:
    """Write map.arrow, shifts.arrow, changes.arrow, statistics.json and verdict.json; return the statistics.

    They come from `scores/` and `noise.arrow`. If `judged/` has rows of further judges, judged.arrow is written too.

    Raises:
        InputError: the folder lacks them, or they break the contract.
    """
    scores, noise, study = stream_scores(folder), read_noise(folder), read_study(folder)
    features = read_features(folder)
    floor = noise_floor(noise)
    cells = entanglement_map(scores, floor, {p["id"]: p["text"] for p in study.get("prompts", ())})
    with pa.ipc.open_file(read_file(files_in(folder / "scores", ".arrow")[0])) as file:
        digest = (file.schema.metadata or {}).get(b"raymap.digest", b"").decode()
    write_atomically(folder / "map.arrow", arrow_bytes(cells.to_arrow().cast(stamped(MAP, digest))))
    tests = shift_tests(scores, noise)
    write_atomically(folder / "shifts.arrow", arrow_bytes(tests.to_arrow().cast(stamped(SHIFTS, digest))))
    changes = change_tests(scores, noise)
    write_atomically(folder / "changes.arrow", arrow_bytes(changes.to_arrow().cast(stamped(CHANGES, digest))))
    drawn = scores.group_by("adapter").agg(pl.col("drawn").any())
    proved = drawn.filter(~pl.col("drawn"))["adapter"].cast(pl.String).to_list()
    statistics = summarize(cells, noise, tests, floor, digest, proved)
    statistics["missing"] = _missing(folder, study, cells)
    statistics["power"] = power(measured(cells), scores, floor.tau_sem)
    found = [] if features is None else distances(features, scores, f"clip:{study.get('clip', 'unknown')}")
    statistics["distances"] = found
    statistics["distance_agreement"] = agreement(found, with_entanglement(measured(cells)))
    if judged := reduce_judged(folder, cells, digest):
        statistics["judged"] = judged
    write_atomically(folder / "statistics.json", as_json(statistics))
    write_verdict(folder)
    return statistics


def _missing(folder: Path, study: dict[str, Any], cells: pl.DataFrame) -> Missing:
    """Return the adapters and prompts of the run without any cell in the map, because all their batches failed."""
    asked = json.loads(read_if_there(folder / "run.json") or b"{}").get("adapters", {})
    prompts = [prompt["id"] for prompt in study.get("prompts", ())]
    return {
        "adapters": sorted(set(asked) - set(cells["adapter"])),
        "prompts": sorted(set(prompts) - set(cells["prompt_id"])),
    }
