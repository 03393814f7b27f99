"""Rows of two further judges, made up for a run folder that has scores and noise."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raymap.plan.blocks import BASE
from raymap.scoring.judges import JudgeInfo
from raymap.store.folder import RunFolder, arrow_bytes
from raymap.store.schema import DECLARED, JUDGED, stamped

INFOS = (
    JudgeInfo("colours", "pair", "3", "share of pixels", False),
    JudgeInfo("defects", "prompt", "sha256:0", "defects", False),
)
"""A pair judge, and a prompt judge whose lower scores are better."""


def judged_table(rows: list[dict[str, Any]], infos: tuple[JudgeInfo, ...] = INFOS, digest: str = "made up") -> pa.Table:
    """Return rows as a table of schema JUDGED; a column that a row leaves out is null."""
    stamp = stamped(JUDGED, digest)
    schema = stamp.with_metadata({**stamp.metadata, DECLARED: json.dumps([asdict(info) for info in infos])})
    whole = [dict.fromkeys(JUDGED.names) | row for row in rows]
    return pa.Table.from_pylist(whole, schema)


def made_up(folder: Path) -> list[dict[str, Any]]:
    """Return both judges' rows of all score rows and seed pairs of a run folder; those of controls are zero shifts."""
    rng = np.random.default_rng(4)
    files = sorted((folder / "scores").glob("*.arrow"))
    scores = [row for path in files for row in pa.ipc.open_file(path).read_all().to_pylist()]
    own = {key: rng.normal(5, 0.4) for key in sorted({(row["prompt_id"], row["seed"]) for row in scores})}
    rows: list[dict[str, Any]] = []
    for row in scores:
        key = {name: row[name] for name in ("adapter", "prompt_id", "seed")}
        before, moves = own[row["prompt_id"], row["seed"]], row["method"] != "identity"
        rows.append({**key, "judge": "colours", "value": rng.uniform(0, 0.6) if moves else 0.0})
        after = before + rng.normal(0.5, 1) if moves else before
        rows.append({**key, "judge": "defects", "value_base": before, "value_adapted": after})
    for pair in pa.ipc.open_file(folder / "noise.arrow").read_all().to_pylist():
        prompt, a, b = pair["prompt_id"], pair["seed_a"], pair["seed_b"]
        key = {"adapter": BASE, "prompt_id": prompt, "seed": a, "seed_b": b}
        rows.append({**key, "judge": "colours", "value": rng.uniform(0.1, 0.4)})
        values = {"value_base": own[prompt, a], "value_adapted": own.get((prompt, b), 5.0)}
        rows.append({**key, "judge": "defects", **values})
    return rows


def write_judged(folder: Path) -> list[dict[str, Any]]:
    """Write a run folder's judged/ in two files, and return its rows."""
    rows, target = made_up(folder), RunFolder(folder).judged
    target.mkdir()
    for name, part in (("00000-a", rows[::2]), ("00000-b", rows[1::2])):
        (target / f"{name}.arrow").write_bytes(arrow_bytes(judged_table(part)))
    return rows
