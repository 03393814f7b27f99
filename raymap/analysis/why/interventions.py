"""Reduces the scores of a run's interventions to interventions.arrow and interventions.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

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
from raymap.analysis.why.statistics import (
    DoseCheck,
    DoseRow,
    InterventionsOfCells,
    InterventionsSummary,
    OfAdapter,
    PartsRow,
    RandomRow,
)
from raymap.store.files import as_json, files_in, local_copy, read_if_there, write_atomically
from raymap.store.folder import RunFolder, arrow_bytes
from raymap.store.schema import INTERVENTIONS, MAP, SCORES, stamped
from raymap.study.interventions import MARK, Part, Variant

PARTS = get_args(Part)


def reduce_interventions(folder: Path) -> InterventionsSummary:
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
    found: InterventionsSummary = {
        "digest": digest,
        **summarize(cells, measured(read_map(folder))),
        "checks": checks(varied, read_scores(folder)),
    }
    write_atomically(folder / "interventions.json", as_json(found))
    return found


def _asked(folder: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the variants that run.json names: a study that was changed may have left rows of others."""
    asked = json.loads(read_if_there(folder / "run.json") or b"{}").get("variants")
    return rows if asked is None else rows.filter(pl.col("adapter").is_in(asked))


def _described(cells: pl.DataFrame) -> pl.DataFrame:
    """Add what the names of variants say, before the map's columns."""
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


def checks(varied: pl.DataFrame, scores: pl.DataFrame) -> list[DoseCheck]:
    """Return for each adapter whether dose 0 gave the base's images and dose 1 the adapter's, to the byte.

    The second answer is known only if one kind of device drew both.

    Args:
        varied: scores of variants (schema SCORES).
        scores: scores of the adapters as trained (schema SCORES).
    """
    rows: list[DoseCheck] = []
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


def summarize(cells: pl.DataFrame, plain: pl.DataFrame) -> InterventionsOfCells:
    """Return what interventions.json holds of cells.

    Args:
        cells: cells of variants (schema INTERVENTIONS).
        plain: the map's cells of the adapters as trained (schema MAP).
    """
    cells, plain = cells.filter(~pl.col("target")), plain.filter(~pl.col("target"))
    dose: list[DoseRow] = []
    parts: list[PartsRow] = []
    random: list[RandomRow] = []
    for (name,), own in cells.group_by("intervened", maintain_order=True):
        whole = plain.filter(pl.col("adapter") == name)
        for measure in (m.name for m in BASIC):
            about: OfAdapter = {"adapter": str(name), "method": own["method"][0], "subject": own["subject"][0],
                                "measure": measure}  # fmt: skip
            if curve := dose_response(own.filter(pl.col("family") == "dose"), measure):
                dose.append({**about, **curve})
            for family in PARTS:
                divided = parts_and_whole(own.filter(pl.col("family") == family), whole, measure)
                parts += [{**about, "family": family, **divided}] if divided else []
            if compared := against_random(own.filter(pl.col("family") == "random"), whole, measure):
                random.append({**about, **compared})
    methods = compare_methods(cells, plain)
    return {
        "scope": "all prompts but those of the subject's own category",
        "dose": dose,
        "parts": parts,
        "random": random,
        "methods": methods,
        "reading": reading(random, methods),
    }
