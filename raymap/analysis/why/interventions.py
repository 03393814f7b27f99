"""Reduces the scores of a run's interventions to interventions.arrow and interventions.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pyarrow as pa

from raymap.analysis.map import entanglement_map, measured, noise_floor
from raymap.analysis.measures import BASIC
from raymap.analysis.read import read_map, read_noise, read_scores, read_study, read_tables, stream_scores
from raymap.analysis.why.responses import (
    against_random,
    compare_methods,
    dose_response,
    parts_and_whole,
    reading,
)
from raymap.errors import InputError
from raymap.store.files import files_in, local_copy, write_atomically
from raymap.store.folder import RunFolder, arrow_bytes, as_json
from raymap.store.schema import INTERVENTIONS, MAP, SCORES, stamped
from raymap.study.interventions import MARK, Part, Variant

PARTS = get_args(Part)


def reduce_interventions(folder: Path) -> dict[str, Any]:
    """Write interventions.arrow and interventions.json from the scores of variants and adapters; return the latter.

    Raises:
        InputError: the folder lacks scores, or they break the contract.
    """
    prompts = {p["id"]: p["text"] for p in read_study(folder).get("prompts", ())}
    floor = noise_floor(read_noise(folder))
    where = RunFolder(folder).interventions
    cells = _described(_asked(folder, entanglement_map(stream_scores(folder, where.name), floor, prompts)))
    with local_copy(where) as copy:
        files = files_in(copy, ".arrow")
        varied = _asked(folder, read_tables(files, SCORES, where))
        digest = (pa.ipc.open_file(files[0]).schema.metadata or {}).get(b"raymap.digest", b"").decode()
    write_atomically(folder / "interventions.arrow", arrow_bytes(cells.to_arrow().cast(stamped(INTERVENTIONS, digest))))
    found = summarize(cells, measured(read_map(folder))) | {"checks": checks(varied, read_scores(folder))}
    write_atomically(folder / "interventions.json", as_json({"digest": digest} | found))
    return found


def read_interventions(folder: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return a run folder's interventions.arrow (schema INTERVENTIONS) and interventions.json.

    Raises:
        InputError: it has none.
    """
    if not (folder / "interventions.json").exists():
        raise InputError(str(folder), "holds no interventions", "give its study `interventions: all` and run it")
    found = json.loads((folder / "interventions.json").read_text(encoding="utf-8"))
    return pl.read_ipc((folder / "interventions.arrow").read_bytes()), found


def _asked(folder: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the variants that run.json names: a study that was changed leaves others behind, in part."""
    record = folder / "run.json"
    asked = json.loads(record.read_text(encoding="utf-8")).get("variants") if record.exists() else None
    return rows if asked is None else rows.filter(pl.col("adapter").is_in(asked))


def _described(cells: pl.DataFrame) -> pl.DataFrame:
    """Put what a variant's name says before the map's columns."""
    names = cells["adapter"].unique(maintain_order=True).to_list()
    told = [
        {"adapter": name, "intervened": v.adapter, "family": v.family, "level": v.level, "alpha": v.alpha}
        for name in names
        for v in [Variant.parse(name)]
    ]
    joined = cells.join(pl.DataFrame(told), on="adapter", maintain_order="left")
    return joined.select("intervened", "family", "level", "alpha", *MAP.names).sort(
        "prompt_id", "intervened", "family", "level"
    )


def checks(varied: pl.DataFrame, scores: pl.DataFrame) -> list[dict[str, Any]]:
    """Return for each adapter whether dose 0 gave the base's pictures and dose 1 the adapter's, to the byte.

    The latter is known where one kind of device drew both.

    Args:
        varied: scores of variants (schema SCORES).
        scores: those of adapters.
    """
    rows: list[dict[str, Any]] = []
    for name in sorted({name.partition(MARK)[0] for name in varied["adapter"].unique()}):
        none, whole = (varied.filter(pl.col("adapter") == Variant(name, "dose", f"{d}", d).name) for d in (0, 1))
        own = scores.filter(pl.col("adapter") == name).select("prompt_id", "seed", "device", plain="adapted_sha256")
        pairs = whole.join(own, on=["prompt_id", "seed", "device"])
        based, equal = none["adapted_sha256"] == none["base_sha256"], pairs["adapted_sha256"] == pairs["plain"]
        rows.append(
            {
                "adapter": name,
                "dose_0_is_the_base": bool(based.all()) if len(based) else None,
                "dose_1_is_the_adapter": bool(equal.all()) if len(equal) else None,
            }
        )
    return rows


def summarize(cells: pl.DataFrame, plain: pl.DataFrame) -> dict[str, Any]:
    """Return what interventions.json holds.

    Args:
        cells: cells of variants (schema INTERVENTIONS).
        plain: the map's cells of the adapters as trained (schema MAP).
    """
    cells, plain = cells.filter(~pl.col("target")), plain.filter(~pl.col("target"))
    dose, parts, random = [], [], []
    for (name,), own in cells.group_by("intervened", maintain_order=True):
        whole = plain.filter(pl.col("adapter") == name)
        about = {"adapter": name, "method": own["method"][0], "subject": own["subject"][0]}
        for measure in (m.name for m in BASIC):
            key = about | {"measure": measure}
            if curve := dose_response(own.filter(pl.col("family") == "dose"), measure):
                dose.append(key | curve)
            divided = {
                family: parts_and_whole(own.filter(pl.col("family") == family), whole, measure) for family in PARTS
            }
            parts += [key | {"family": family} | found for family, found in divided.items() if found]
            if compared := against_random(own.filter(pl.col("family") == "random"), whole, measure):
                random.append(key | compared)
    methods = compare_methods(cells, plain)
    return {
        "scope": "all prompts but those of the subject's own category",
        "dose": dose,
        "parts": parts,
        "random": random,
        "methods": methods,
        "reading": reading(random, methods),
    }
