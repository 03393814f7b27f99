"""A Ray runtime on this machine, which all tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raymap.cluster.launch import runtime
from raymap.study.model import Resources


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    """Ray's own processes start once, as each start takes seconds."""
    with runtime(Resources()):
        yield
