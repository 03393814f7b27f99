"""The further judges' map and statistics, beside the same numbers computed row by row in plain Python."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats

from raymap import open_run
from raymap.analysis.reduce import reduce_run
from raymap.errors import InputError
from raymap.store.folder import arrow_bytes
from raymap.store.schema import DECLARED, JUDGED_MAP
from raymap.testing.scores import write_scores
from tests.judged_rows import INFOS, judged_table, write_judged

ADAPTERS = ("face-lora", "style-lora", "identity-lora")
CATEGORIES = ("face", "style", "control")
Values = dict[tuple[str, str, str], list[float]]


@pytest.fixture(scope="module")
def unjudged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(6)
    shift, lpips = rng.normal(0, 0.02, (14, 3, 3)), rng.uniform(0, 0.5, (14, 3, 3))
    shift[:, 2], lpips[:, 2] = 0, 0
    methods = ("lora", "lora", "identity")
    folder = tmp_path_factory.mktemp("unjudged")
    return write_scores(folder, shift, lpips, adapters=ADAPTERS, subject_categories=CATEGORIES, methods=methods)


@pytest.fixture(scope="module")
def judged(unjudged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("judged") / "run"
    shutil.copytree(unjudged, folder)
    rows = write_judged(folder)
    reduce_run(folder)
    return folder, rows


def shift_of(row: dict[str, Any]) -> float:
    """Return a row's shift, from float32 as files hold it; signed where a prompt judge said it."""
    if row["judge"] == "colours":
        return float(np.float32(row["value"]))
    return float(np.float32(row["value_adapted"])) - float(np.float32(row["value_base"]))


def gathered(rows: list[dict[str, Any]]) -> tuple[Values, dict[str, dict[str, list[float]]]]:
    """Return shifts by judge, adapter and prompt, and those of base seed pairs by judge and prompt."""
    cells: Values = defaultdict(list)
    noise: dict[str, dict[str, list[float]]] = {info.name: defaultdict(list) for info in INFOS}
    for row in rows:
        if row["adapter"] == "base":
            noise[row["judge"]][row["prompt_id"]].append(abs(shift_of(row)))
        else:
            cells[row["judge"], row["adapter"], row["prompt_id"]].append(shift_of(row))
    return cells, noise


def matched_limit(pairs: dict[str, list[float]], prompt: str, seeds: int) -> float:
    """m + t(0.95, df) s √(1/K + 1/n), s pooled within prompts."""
    df = sum(len(values) - 1 for values in pairs.values())
    squares = sum(((np.array(values) - np.mean(values)) ** 2).sum() for values in pairs.values())
    own = pairs[prompt]
    reach = stats.t.ppf(0.95, df) * np.sqrt(squares / df) * np.sqrt(1 / seeds + 1 / len(own))
    return float(np.mean(own) + reach)


def test_the_map_of_judges_holds_means_over_seeds_and_both_floors(judged: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = judged
    cells, noise = gathered(rows)
    table = pa.ipc.open_file(folder / "judged.arrow").read_all()
    assert [(f.name, f.type) for f in table.schema] == [(f.name, f.type) for f in JUDGED_MAP]
    assert [info["name"] for info in json.loads(table.schema.metadata[DECLARED])] == ["colours", "defects"]
    assert table.num_rows == len(cells) == 2 * 3 * 14
    for row in table.to_pylist():
        found = np.array(cells[row["judge"], row["adapter"], row["prompt_id"]])
        pairs = noise[row["judge"]]
        tau = np.quantile(np.concatenate(list(pairs.values())), 0.95)
        assert row["n_seeds"] == 3
        assert row["shift"] == pytest.approx(np.abs(found).mean(), rel=1e-12)
        signed = pytest.approx(found.mean(), rel=1e-9) if row["judge"] == "defects" else None
        assert row["shift_signed"] == signed
        assert row["above_tau"] == (row["shift"] > tau)
        assert row["matched_tau"] == pytest.approx(matched_limit(pairs, row["prompt_id"], 3), rel=1e-9)
        assert row["above_matched"] == (row["shift"] > row["matched_tau"])
    assert open_run(folder).judged.equals(pl.DataFrame(pl.from_arrow(table)))


def test_statistics_hold_means_over_non_target_prompts_and_the_floor(judged: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = judged
    cells, noise = gathered(rows)
    statistics = json.loads((folder / "statistics.json").read_text())["judged"]
    targets = {"face-lora": 0, "style-lora": 4}  # prompt p is of category p mod 6: people, ..., styles
    for info, said in zip(INFOS, statistics["judges"], strict=True):
        values = np.concatenate(list(noise[info.name].values()))
        assert (said["judge"], said["kind"], said["version"], said["unit"]) == (
            info.name, info.kind, info.version, info.unit,
        )  # fmt: skip
        assert said["tau"]["value"] == pytest.approx(np.quantile(values, 0.95), rel=1e-12)
        assert said["tau"]["low"] < said["tau"]["value"] < said["tau"]["high"]
        assert (said["pairs"], said["largest_control"], said["reason"]) == (len(values), 0.0, None)
    entries = statistics["adapters"]
    judges = ("colours", "defects")
    assert [(e["judge"], e["adapter"]) for e in entries] == [
        (j, a) for j in judges for a in ("face-lora", "style-lora")
    ]
    for entry in entries:
        others = [f"p{p:03d}" for p in range(14) if p % 6 != targets[entry["adapter"]]]
        found = [np.array(cells[entry["judge"], entry["adapter"], p]) for p in others]
        shifts = np.array([np.abs(values).mean() for values in found])
        low, high = stats.t.interval(0.95, len(shifts) - 1, shifts.mean(), stats.sem(shifts))
        shift = entry["shift"]
        assert (shift["value"], shift["low"], shift["high"]) == pytest.approx((shifts.mean(), low, high), rel=1e-9)
        assert shift["n"] == len(others)
        tau = np.quantile(np.concatenate(list(noise[entry["judge"]].values())), 0.95)
        assert entry["above_tau"] == (shifts > tau).sum()
        limits = [matched_limit(noise[entry["judge"]], p, 3) for p in others]
        assert entry["above_matched"] == (shifts > limits).sum()
        if entry["judge"] == "defects":
            assert entry["shift_signed"]["value"] == pytest.approx(np.mean([v.mean() for v in found]), rel=1e-9)
        else:
            assert entry["shift_signed"] is None


def test_judges_change_neither_the_map_nor_any_other_statistic(
    unjudged: Path, judged: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    shutil.copytree(unjudged, tmp_path / "run")
    reduce_run(tmp_path / "run")
    for name in ("map.arrow", "shifts.arrow"):
        assert (tmp_path / "run" / name).read_bytes() == (judged[0] / name).read_bytes()
    alone, beside = (json.loads((f / "statistics.json").read_text()) for f in (tmp_path / "run", judged[0]))
    assert "judged" not in alone
    assert alone == {key: value for key, value in beside.items() if key != "judged"}
    assert not (tmp_path / "run" / "judged.arrow").exists()
    assert open_run(tmp_path / "run").judged.schema == open_run(judged[0]).judged.schema
    assert open_run(tmp_path / "run").judged.is_empty()


def test_a_cell_whose_batch_failed_has_no_shift(judged: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, rows = judged
    shutil.copytree(folder, tmp_path / "run")
    kept = [row for row in rows if (row["adapter"], row["prompt_id"]) != ("face-lora", "p003")]
    (tmp_path / "run" / "judged" / "00000-b.arrow").unlink()
    (tmp_path / "run" / "judged" / "00000-a.arrow").write_bytes(arrow_bytes(judged_table(kept)))
    reduce_run(tmp_path / "run")
    cells = open_run(tmp_path / "run").judged
    empty = cells.filter(pl.col("n_seeds") == 0)
    assert set(empty.select("adapter", "prompt_id").iter_rows()) == {("face-lora", "p003")}
    columns = ("shift", "shift_signed", "above_tau", "matched_tau", "above_matched")
    assert all(empty[column].null_count() == empty.height for column in columns)
    entry = open_run(tmp_path / "run").statistics["judged"]["adapters"][0]
    assert (entry["adapter"], entry["shift"]["n"]) == ("face-lora", 14 - 3 - 1)


def test_without_seed_pairs_there_is_no_floor_and_that_is_said(
    judged: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rows = judged
    shutil.copytree(folder, tmp_path / "run")
    kept = [row for row in rows if row["adapter"] != "base"]
    (tmp_path / "run" / "judged" / "00000-b.arrow").unlink()
    (tmp_path / "run" / "judged" / "00000-a.arrow").write_bytes(arrow_bytes(judged_table(kept)))
    statistics = reduce_run(tmp_path / "run")["judged"]
    assert [(j["tau"], j["reason"]) for j in statistics["judges"]] == [(None, "no pair of base seeds was judged")] * 2
    assert {(a["above_tau"], a["above_matched"]) for a in statistics["adapters"]} == {(None, None)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: judged_table([*rows, {**rows[0], "value": 0.9}]), "two different rows for"),
        (lambda rows: judged_table(rows, INFOS[:1]), "holds rows of different judges"),
        (lambda rows: judged_table(rows).drop_columns("value"), "has columns"),
    ],
)
def test_rows_that_break_the_contract_are_refused(
    judged: tuple[Path, list[dict[str, Any]]], tmp_path: Path, change: Callable[[Any], pa.Table], said: str
) -> None:
    folder, rows = judged
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "judged" / "00000-c.arrow").write_bytes(arrow_bytes(change(rows[:2])))
    with pytest.raises(InputError, match=said):
        reduce_run(tmp_path / "run")
