"""A few runs of benchmarks/chaos.py: things are killed on a cluster of three nodes, and no byte differs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos import Chaos, files_of
from tests.small_study import small_study
from tests.workers import HOOK


@pytest.fixture
def chaos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    monkeypatch.delenv(HOOK)  # it looks for what it kills among its own children
    hand = Chaos(small_study(tmp_path, resources={"workers": {"min": 1, "max": 3}}))
    yield hand
    hand.close()


def test_a_run_on_three_nodes_ends_with_one_machines_bytes_whatever_dies(
    chaos: Chaos, finished: Path, tmp_path: Path
) -> None:
    outcome = chaos.disturbed(tmp_path / "run", random.Random(0), 3, files_of(finished))
    assert outcome.wrong == ""
    assert outcome.done.total() >= 1, "it ended before anything could be done to it"
