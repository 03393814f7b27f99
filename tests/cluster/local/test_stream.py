"""The stream of batches through workers that break: what is tried elsewhere, what is given up, when a run ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raymap.cluster import launch
from raymap.cluster.stream import Stream
from raymap.display.progress import Progress
from raymap.errors import IncompleteRunError
from raymap.plan.blocks import BASE, Unit
from raymap.plan.schedule import Schedule
from raymap.store.folder import RunFolder
from raymap.study.model import Resources, Workers
from raymap.testing.actors import FaultyGenerator, StillScorer
from raymap.testing.plans import plan_of

SIDE = 8
PLAN = plan_of(1840, batch=10)
"""Four blocks of ten images under the base and 45 adapters."""
ONE, TWO = Workers(min=1, max=1), Workers(min=2, max=2)


def stream_of(folder: Path, breaks_under: str | None) -> Stream:
    """Return a stream whose generators break under a model; without one, the first process of them breaks."""
    run, started = RunFolder(folder / "run"), folder / "started"
    started.mkdir()
    run.root.mkdir()
    resources = Resources.model_validate({"workers": 1})
    spec = (SIDE, breaks_under, started)
    return Stream(
        PLAN,
        Schedule(PLAN, set()),
        run,
        launch.start_reducer(run),
        lambda: launch.start_pair(FaultyGenerator, spec, StillScorer, (PLAN.digest, SIDE), resources),
        Progress(),
    )


def failures(folder: Path) -> list[dict[str, object]]:
    path = folder / "run" / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_worker_that_broke_is_replaced_and_its_batches_are_drawn_elsewhere(local_ray: None, tmp_path: Path) -> None:
    stream = stream_of(tmp_path, None)
    stream.run(ONE)
    assert set(RunFolder(tmp_path / "run").ledger()) == set(PLAN.units)
    assert not failures(tmp_path)
    assert len(list((tmp_path / "started").iterdir())) == len(stream.seen) == 2


def test_a_batch_that_breaks_two_workers_is_given_up_and_the_rest_is_drawn(local_ray: None, tmp_path: Path) -> None:
    stream = stream_of(tmp_path, "adapter-7")
    stream.run(TWO)
    bad = {Unit(block.index, "adapter-7") for block in PLAN.blocks}
    assert stream.schedule.failed == bad
    assert set(RunFolder(tmp_path / "run").ledger()) == set(PLAN.units) - bad
    assert [(line["adapter"], line["problem"]) for line in failures(tmp_path)] == [
        ("adapter-7", FaultyGenerator.PROBLEM)
    ] * 4


def test_a_run_whose_workers_all_break_ends_and_says_why(local_ray: None, tmp_path: Path) -> None:
    with pytest.raises(IncompleteRunError, match=f"workers break one after another: {FaultyGenerator.PROBLEM}"):
        stream_of(tmp_path, BASE).run(TWO)
    assert not RunFolder(tmp_path / "run").ledger()
