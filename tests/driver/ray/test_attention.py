"""`raymap attention` beside a finished run: the map untouched, the control exactly zero, lost batches made good."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from raymap.analysis.why.statistics import AttentionSummary
from raymap.results import Run
from raymap.store.schema import ATTENTION
from tests.commands import run_here
from tests.once import made_once


@pytest.fixture(scope="session")
def attended(finished: Path, study: Path, shared: Path, cluster: str) -> Path:
    """The small study's finished run folder, copied, with its attention measured by the real command."""

    def make(output: Path) -> None:
        shutil.copytree(finished, output)
        run_here("attention", study, "--output", output, address=cluster)

    return made_once(shared / "attended", make)


def reduced(run: Path) -> tuple[pl.DataFrame, AttentionSummary]:
    found = Run(run).attention
    assert found is not None
    return pl.read_ipc(run / "attention_cells.arrow"), found


def test_attention_lies_beside_the_map_and_leaves_it_alone(finished: Path, attended: Path) -> None:
    for name in ("map.arrow", "statistics.json", "ledger.jsonl", "noise.arrow"):
        assert (attended / name).read_bytes() == (finished / name).read_bytes()
    with pa.ipc.open_file(attended / "attention.arrow") as file:
        assert [f.name for f in file.schema] == ATTENTION.names
        digest = file.schema.metadata[b"raymap.digest"].decode()
    rows = pl.read_ipc(attended / "attention.arrow")
    assert rows.height == 2 * 7 * 2 * 2 * 7 * 3 * 4  # adapters, prompts, seeds, protocols, layers, steps, classes
    cells, found = reduced(attended)
    assert found["digest"] == digest
    assert cells.height == 2 * 7 * 2 * 5
    mapped = pl.read_ipc(attended / "map.arrow")
    beside = cells.join(mapped, on=["prompt_id", "adapter"], suffix="_map")
    assert (beside["e_sem"] == beside["e_sem_map"]).all()
    assert len(found["table_3"]) == 7
    words = pl.read_ipc(attended / "attention_tokens.arrow")
    assert words.select("adapter", "prompt_id").unique().height == 2 * 7
    assert "bear</w>" in words["token"]


def test_the_control_of_a_run_is_exactly_zero_and_its_adapter_is_not(attended: Path) -> None:
    cells, found = reduced(attended)
    control = found["identity_control"]
    assert (control["present"], control["exact"], control["max_delta"], control["max_js"]) == (True, True, 0.0, 0.0)
    assert control["computed"] == control["rows"] > 0
    own = cells.filter(pl.col("adapter") == "star-cup-lora")
    for measure in ("delta", "relative", "js"):
        assert (own[measure] > 0).all()
    assert {row["adapter"] for row in found["adapters"]} == {"star-cup-lora"}


def test_what_was_lost_is_measured_again_to_the_same_bytes(
    attended: Path, study: Path, tmp_path: Path, cluster: str
) -> None:
    output = tmp_path / "run"
    shutil.copytree(attended, output)
    name = "attention/scores/00001-star-cup-lora.arrow"
    (output / name).unlink()
    run_here("attention", study, "--output", output, address=cluster)
    for kept in (name, "attention.arrow", "attention_cells.arrow", "attention.json"):
        assert (output / kept).read_bytes() == (attended / kept).read_bytes()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (["attention.bins=2"], "measured with other settings"),
        (["attention.head_groups=9"], "has 2 heads"),
        (["speed.compile=default"], "speed.compile: default: compiles the denoiser"),
        (["protocol=triggered"], "write `protocol: plain`"),
        (["attention.colour=1"], "is not a key of a study"),
    ],
)
def test_bad_input_ends_with_2_before_anything_starts(
    attended: Path, study: Path, call: Callable[..., tuple[int, str]], changes: list[str], problem: str
) -> None:
    pairs = [part for change in changes for part in ("--set", change)]
    code, error = call("attention", study, "--output", attended, *pairs)
    assert code == 2
    assert problem in error


def test_attention_needs_a_finished_map(study: Path, tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    code, error = call("attention", study, "--output", tmp_path / "none")
    assert code == 2
    assert "`raymap run` first" in error
