"""What all refusals of bad input have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ray

Call = Callable[..., tuple[int, str]]


def refused(call: Call, *args: str | Path, names: tuple[str, ...]) -> None:
    """Give a command, which must end with exit code 2 and one line that names all of `names`, before Ray starts."""
    code, err = call(*args)
    assert code == 2, err
    assert err.count("\n") == 1, err
    for name in names:
        assert name in err, err
    assert not ray.is_initialized()
