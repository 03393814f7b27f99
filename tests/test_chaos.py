"""A few runs of benchmarks/chaos.py: things are killed on a cluster of three nodes, and no byte differs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos import Chaos, files_of


@pytest.fixture
def chaos(study: Path) -> Iterator[Chaos]:
    hand = Chaos(study)
    yield hand
    hand.close()


def test_a_run_on_three_nodes_ends_with_one_machines_bytes_whatever_dies(
    chaos: Chaos, finished: Path, tmp_path: Path
) -> None:
    outcome = chaos.disturbed(tmp_path / "run", random.Random(0), 3, files_of(finished))
    assert outcome.wrong == ""
    assert outcome.done.total() >= 1, "it ended before anything could be done to it"
