"""What follows from a failure is decided from what was being done and what it raised, without a Ray runtime."""

from __future__ import annotations

import pytest

from raymap.cluster.failures import Decision, Work, decide
from raymap.errors import DrawingError, InputError, StorageError

LOST = None
BROKEN = RuntimeError("CUDA error: an illegal memory access was encountered")
BLACK = DrawingError("under cup: an all-black image")
FULL = StorageError("/run/ledger.jsonl cannot be written (No space left on device)")
NOWHERE = InputError("/run", "cannot be seen from node n7", "give an --output that every node reaches")
GIVE_UP, RETRY, END = Decision.GIVE_UP, Decision.RETRY_ELSEWHERE, Decision.END_RUN


@pytest.mark.parametrize(
    ("error", "start", "batch", "training"),
    [
        pytest.param(LOST, RETRY, RETRY, RETRY, id="its process or node was lost"),
        pytest.param(BROKEN, END, RETRY, GIVE_UP, id="an error that a broken GPU may raise"),
        pytest.param(BLACK, END, GIVE_UP, GIVE_UP, id="an image that cannot be scored"),
        pytest.param(FULL, END, END, GIVE_UP, id="the run folder cannot be written"),
        pytest.param(NOWHERE, END, GIVE_UP, GIVE_UP, id="bad input"),
    ],
)
def test_a_failure_is_decided_by_what_raised_it_and_where(
    error: Exception | None, start: Decision, batch: Decision, training: Decision
) -> None:
    assert [decide(work, error) for work in (Work.START, Work.BATCH, Work.TRAINING)] == [start, batch, training]
