"""What a report is made from: a reduced run folder, read once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from raymap.analysis.map import measured, with_entanglement
from raymap.analysis.read import KEY, read_map, read_scores, read_statistics, read_study
from raymap.analysis.shifts import TESTS
from raymap.errors import InputError
from raymap.store.files import read_each
from raymap.store.folder import RunFolder

WHY = ("attention", "interventions")


@dataclass(frozen=True)
class Run:
    """A reduced run.

    `cells` is the map, controls included, with `entanglement` (E's summand; null for controls) and the q-values
    `q_sem`, `q_per`, `q_signed` of each cell. `cards` are the adapters' adapter.json by name, of those that have one.
    `attention` and `interventions` are what attention.json and interventions.json hold; empty where there are none.
    """

    folder: RunFolder
    title: str
    cells: pl.DataFrame
    scores: pl.DataFrame
    statistics: dict[str, Any]
    study: dict[str, Any]
    record: dict[str, Any]
    cards: dict[str, dict[str, Any]]
    attention: dict[str, Any]
    interventions: dict[str, Any]

    @property
    def others(self) -> pl.DataFrame:
        """The cells that adapters are judged by: neither controls nor target prompts."""
        return measured(self.cells).filter(~pl.col("target"))


def read_run(root: Path) -> Run:
    """Read map, tests, statistics, scores and, where they are there, run.json, study.yaml and the adapters' cards.

    Raises:
        InputError: map.arrow, shifts.arrow or statistics.json is not there, or scores/ breaks the contract.
    """
    needed = ("map.arrow", "shifts.arrow", "statistics.json")
    for name, content in zip(needed, read_each([root / name for name in needed]), strict=True):
        if content is None:
            raise InputError(str(root / name), "is not there", f"write it with `raymap stats {root}`")
    record_path = root / "run.json"
    record = json.loads(record_path.read_text(encoding="utf-8")) if record_path.exists() else {}
    cells = read_map(root)
    tests = pl.read_ipc((root / "shifts.arrow").read_bytes()).select(*KEY, *(f"q_{name}" for name in TESTS))
    summands = with_entanglement(measured(cells)).select(*KEY, "entanglement")
    joined = cells.join(summands, on=KEY, how="left").join(tests, on=KEY, how="left").sort(*KEY)
    return Run(
        RunFolder(root),
        str(record.get("study", root.name)),
        joined,
        read_scores(root),
        read_statistics(root),
        read_study(root),
        record,
        _cards(root),
        *(json.loads(content or b"{}") for content in read_each([root / f"{name}.json" for name in WHY])),
    )


def _cards(root: Path) -> dict[str, dict[str, Any]]:
    paths = sorted((root / "adapters").glob("*/adapter.json"))
    contents = [json.loads(content) for content in read_each(paths) if content is not None]
    return {card["name"]: card for card in contents}
