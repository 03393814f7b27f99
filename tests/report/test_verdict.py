"""What a report's verdict says of a run that lacks something, and which cells it names first."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import yaml

from raymap.analysis.read import read_study
from raymap.analysis.reduce import reduce_run
from raymap.report.page import render
from raymap.report.verdict import look_first, shown_verdict
from raymap.results import read_run
from raymap.store.folder import arrow_bytes
from raymap.store.schema import SCORES, stamped
from raymap.testing.runs import SyntheticRun, write_run
from tests.report.invented import ADAPTERS, PROMPTS


def test_missing_seeds_are_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SyntheticRun(ADAPTERS[:3], PROMPTS[:6], seeds=4, side=16))
    path = sorted((folder / "scores").iterdir())[1]
    rows = pl.read_ipc(path.read_bytes())
    left = rows.filter(~((pl.col("prompt_id") == "p002") & (pl.col("seed") > 1)))
    path.write_bytes(arrow_bytes(left.to_arrow().cast(stamped(SCORES, "synthetic"))))
    reduce_run(folder)
    said = [sentence.text for sentence in shown_verdict(read_run(folder)).certainty]
    assert any("Not every cell has all 4 seeds: 1 of 18 cells" in text for text in said)


def test_what_failed_entirely_is_named_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SyntheticRun(ADAPTERS[:3], PROMPTS[:6], seeds=4, side=16))
    names = [row[0] for row in ADAPTERS[:3]]
    (folder / "run.json").write_text(json.dumps({"adapters": dict.fromkeys([*names, "overflown-lora"], "")}))
    study = read_study(folder)
    study["prompts"] = [*study.get("prompts", ()), {"id": "p777", "text": "a lost place", "category": "scenes"}]
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    assert reduce_run(folder)["missing"] == {"adapters": ["overflown-lora"], "prompts": ["p777"]}
    found = read_run(folder).verdict
    said = "Nothing could be measured for 1 adapter (overflown-lora) and 1 prompt (p777): every batch failed."
    assert found["headline"].endswith(said)
    assert said in render(folder).read_text()


def test_a_prompt_that_fell_comes_before_a_larger_change_that_is_not_sure(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SyntheticRun(ADAPTERS[:3], PROMPTS[:6], seeds=4, side=16))
    reduce_run(folder)
    run = read_run(folder)
    shape = {"prompt_id": ["p000", "p000", "p001"], "adapter": ["style-lora", "face-lora", "style-lora"]}
    one = run.others.head(3).with_columns(
        *(pl.Series(name, values) for name, values in shape.items()),
        e_sem=pl.Series([0.03, 0.02, 0.025]), answer=pl.Series(["cannot tell", "shifted", "cannot tell"]),
        fell=pl.Series([False, True, False]),
    )  # fmt: skip
    look = look_first(one.select(run.cells.columns), 5, one_per_prompt=True)
    assert [(cell.prompt_id, cell.adapter, cell.answer, cell.ways) for cell in look] == [
        ("p000", "face-lora", "shifted", ("fell",)),
        ("p001", "style-lora", "cannot tell", ()),
    ]
