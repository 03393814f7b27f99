"""The public names of the package: few, listed, typed, and loaded only when they are asked for."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

import raymap

NAMES = [
    "Audit", "AuditLimits", "Comparison", "IncompleteRunError", "InputError", "RaymapError", "Run", "Study",
    "__version__", "audit", "compare", "load_study", "open_run", "run",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert raymap.__all__ == NAMES == sorted(NAMES) == dir(raymap)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(raymap, name).__doc__


def test_the_version_is_the_installed_ones() -> None:
    assert raymap.__version__ == version("raymap")


def test_another_name_is_refused_as_python_refuses_it() -> None:
    with pytest.raises(AttributeError, match="module 'raymap' has no attribute 'run_study'"):
        _ = raymap.run_study


def test_type_checkers_read_the_package() -> None:
    assert (Path(raymap.__file__).parent / "py.typed").is_file()
