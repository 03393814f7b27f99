"""What follows from a failure: a pure decision, whatever raised it and wherever it ran."""

from __future__ import annotations

from enum import Enum, auto

from raymap.errors import RaymapError, StorageError


class Work(Enum):
    """What an actor was doing."""

    START = auto()
    BATCH = auto()
    TRAINING = auto()


class Decision(Enum):
    """What the driver does next."""

    GIVE_UP = auto()
    """The fault is the batch's or the training's own: it is recorded as failed, and the rest continues."""

    RETRY_ELSEWHERE = auto()
    """The fault may be the worker's: another one tries the same again, as often as the caller allows."""

    END_RUN = auto()
    """No worker could do better: the run ends, and what was committed stays."""


def decide(work: Work, error: BaseException | None) -> Decision:
    """Decide what follows from a failure.

    Args:
        error: what the work itself raised; None where its process or node was lost.
    """
    if error is None:
        return Decision.RETRY_ELSEWHERE
    match work:
        case Work.START:
            return Decision.END_RUN
        case Work.TRAINING:
            return Decision.GIVE_UP
        case Work.BATCH if isinstance(error, StorageError):
            return Decision.END_RUN
        case Work.BATCH if isinstance(error, RaymapError):
            return Decision.GIVE_UP
    return Decision.RETRY_ELSEWHERE  # a GPU that broke raises an error too, and then in every batch
