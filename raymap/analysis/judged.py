"""The judges beside CLIP and LPIPS: from their rows to their map, its noise floor and what statistics.json says.

What a judge finds of a pair is its *shift*: the distance (pair judges), or the change of the score (prompt judges),
without its sign and with it. Seed pairs of the base are treated in the same way. The noise floor of a judge is thus the
95th percentile of their shifts, as for E_sem and E_per (paper, eq. 12), and raymap.analysis.floor gives the matched
floor.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from raymap.analysis.floor import Pairs, pairs_of, percentile_estimate
from raymap.analysis.map import PERCENTILE, measured
from raymap.analysis.read import RIGHT, read_tables
from raymap.analysis.statistics import Judged, JudgedAdapter, JudgeSummary
from raymap.analysis.summary import over_prompts
from raymap.errors import InputError
from raymap.plan.blocks import BASE
from raymap.scoring.judges import JudgeInfo
from raymap.store.files import files_in, local_copy, read_each, write_atomically
from raymap.store.folder import RunFolder, arrow_bytes
from raymap.store.schema import DECLARED, JUDGED, JUDGED_MAP, stamped
from raymap.study.methods.method import CONTROL

ROW = ("judge", "adapter", "prompt_id", "seed", "seed_b")
"""What names a row of judged/."""
CHANGE = pl.col("value_adapted").cast(pl.Float64) - pl.col("value_base").cast(pl.Float64)
"""The change of a prompt judge's score; null in the rows of pair judges."""
SHIFT = pl.coalesce(pl.col("value").cast(pl.Float64), CHANGE.abs())
NO_PAIRS = "no pair of base seeds was judged"


def reduce_judged(folder: Path, cells: pl.DataFrame, digest: str) -> Judged | None:
    """Write a run folder's judged.arrow (schema JUDGED_MAP), and return what statistics.json says about its judges.

    Args:
        cells: the folder's map (schema MAP), controls included.
        digest: the digest of the run, which goes into the table's metadata.

    Returns:
        None, with nothing written, if the run has no judge beside CLIP and LPIPS.

    Raises:
        InputError: the rows in judged/ break the contract.
    """
    rows, infos = read_judged(folder)
    if not infos:
        return None
    judged = judged_map(rows, cells)
    stamp = stamped(JUDGED_MAP, digest)
    declared = json.dumps([asdict(info) for info in infos])
    schema = stamp.with_metadata({**stamp.metadata, DECLARED: declared})
    write_atomically(folder / "judged.arrow", arrow_bytes(judged.to_arrow().cast(schema)))
    return summarize_judged(judged, rows, infos)


def read_judged(folder: Path) -> tuple[pl.DataFrame, tuple[JudgeInfo, ...]]:
    """Return all rows of judged/ (schema JUDGED), and what each judge declares, by name.

    Raises:
        InputError: a file is not an Arrow file or has other columns, files differ in their judges, or there are two
            different rows for one adapter, prompt, seed and judge.
    """
    where = RunFolder(folder).judged
    with local_copy(where) as copy:
        files = files_in(copy, ".arrow")
        if not files:
            return pl.DataFrame(pl.from_arrow(JUDGED.empty_table())), ()
        rows = read_tables(files, JUDGED, where).unique(maintain_order=True)
        declared = {_declared(path) for path in files}
    if len(declared) > 1:
        raise InputError(str(where), "holds rows of different judges", RIGHT)
    infos = tuple(JudgeInfo(**info) for info in json.loads(declared.pop()))
    if unknown := set(rows["judge"].unique()) - {info.name for info in infos}:
        raise InputError(str(where), f"does not declare the judge {min(unknown)!r}", RIGHT)
    if (again := rows.filter(rows.select(ROW).is_duplicated())).height:
        raise InputError(str(where), f"holds two different rows for {again.select(ROW).row(0)}", RIGHT)
    return rows.sort(ROW), infos


def read_judged_map(folder: Path) -> pl.DataFrame:
    """Return a run folder's judged.arrow (schema JUDGED_MAP); no rows if the run has no further judge."""
    content = next(read_each([folder / "judged.arrow"]))
    return pl.DataFrame(pl.from_arrow(JUDGED_MAP.empty_table())) if content is None else pl.read_ipc(content)


def _declared(path: Path) -> bytes:
    with pa.ipc.open_file(path) as file:
        metadata: dict[bytes, bytes] = file.schema.metadata or {}
    return metadata.get(DECLARED, b"[]")


def judged_map(rows: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Average judges' rows over seeds (schema JUDGED_MAP): one row per prompt, adapter and judge.

    A cell of the map without any row, because its batch failed, is included with `n_seeds` 0 and nulls.

    Args:
        rows: as `read_judged` returns them.
        cells: the map (schema MAP).
    """
    means = (
        rows.filter(pl.col("adapter") != BASE)
        .group_by("adapter", "prompt_id", "judge")
        .agg(shift=SHIFT.mean(), shift_signed=CHANGE.mean(), n_seeds=pl.len().cast(pl.Int64))
    )
    known = [name for name in JUDGED_MAP.names if name in cells.columns and name != "n_seeds"]
    judged = (
        cells.select(known)
        .join(rows.select("judge").unique(), how="cross")
        .join(means, on=["adapter", "prompt_id", "judge"], how="left")
        .with_columns(pl.col("n_seeds").fill_null(0))
    )
    parts = []
    for (name,), part in judged.group_by("judge", maintain_order=True):
        pairs = _pairs(rows, str(name))
        matched = pl.Series(_matched(part, pairs), dtype=pl.Float64).fill_nan(None)
        parts.append(
            part.with_columns(above_tau=pl.col("shift") > pl.lit(_tau(pairs), pl.Float64), matched_tau=matched)
            .with_columns(above_matched=pl.col("shift") > pl.col("matched_tau"))
        )  # fmt: skip
    return pl.concat(parts).select(JUDGED_MAP.names).sort("judge", "prompt_id", "adapter")


def summarize_judged(judged: pl.DataFrame, rows: pl.DataFrame, infos: tuple[JudgeInfo, ...]) -> Judged:
    """Return what statistics.json says about the judges beside CLIP and LPIPS.

    Args:
        judged: as `judged_map` returns it.
        rows, infos: as `read_judged` returns them.
    """
    adapters = measured(judged).partition_by("adapter", "judge", maintain_order=True)
    return {
        "judges": [
            _judge(info, judged.filter(pl.col("judge") == info.name), _pairs(rows, info.name)) for info in infos
        ],
        "adapters": [_adapter(part) for part in adapters],
    }


def _pairs(rows: pl.DataFrame, judge: str) -> Pairs:
    """Return a judge's shifts between seeds of the base."""
    own = rows.filter(pl.col("adapter") == BASE, pl.col("judge") == judge)
    return pairs_of(own.select("prompt_id", shift=SHIFT), "shift")


def _tau(pairs: Pairs) -> float | None:
    return pl.Series(pairs.values, dtype=pl.Float64).quantile(PERCENTILE, "linear")


def _matched(cells: pl.DataFrame, pairs: Pairs) -> np.ndarray:
    """Return the matched floor of each cell; NaN if the cell has no seed, or its prompt no seed pair."""
    number = {prompt: k for k, prompt in enumerate(pairs.prompts)}
    at = np.array([number.get(prompt, -1) for prompt in cells["prompt_id"]], dtype=np.int64)
    seeds = cells["n_seeds"].to_numpy()
    return np.where(seeds > 0, pairs.matched(at, np.maximum(seeds, 1)), np.nan)


def _judge(info: JudgeInfo, cells: pl.DataFrame, pairs: Pairs) -> JudgeSummary:
    tau = _tau(pairs)
    controls = cells.filter(pl.col("method") == CONTROL)["shift"].drop_nulls().to_list()
    return {
        "judge": info.name,
        "kind": info.kind,
        "version": info.version,
        "unit": info.unit,
        "higher_is_better": info.higher_is_better,
        "pairs": len(pairs.values),
        "tau": None if tau is None else percentile_estimate(pairs, tau),
        "largest_control": max(controls, default=None),
        "reason": NO_PAIRS if tau is None else None,
    }


def _adapter(part: pl.DataFrame) -> JudgedAdapter:
    others, first = part.filter(~pl.col("target")), part.row(0, named=True)
    signed = others["shift_signed"]
    above = {name: int(others[name].sum()) if others[name].count() else None for name in ("above_tau", "above_matched")}
    return {
        "adapter": first["adapter"],
        "method": first["method"],
        "subject": first["subject"],
        "subject_category": first["subject_category"],
        "judge": first["judge"],
        "shift": over_prompts(others["shift"]),
        "shift_signed": over_prompts(signed) if signed.count() else None,
        "above_tau": above["above_tau"],
        "above_matched": above["above_matched"],
    }
