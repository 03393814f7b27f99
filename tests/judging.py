"""A package of judges as a user would install it: the example of docs/judges.md, put where Python finds it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tests

GUIDE = Path(tests.__file__).parent.parent / "docs" / "judges.md"


def example(language: str) -> str:
    """Return the only block of docs/judges.md that is written in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(block)


def install(folder: Path, code: str, entries: dict[str, str], name: str = "my-judges") -> Path:
    """Install a module `my_judges` with entry points into a folder, as pip does into site-packages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my_judges.py").write_text(code, encoding="utf-8")
    written = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    written.mkdir(exist_ok=True)
    (written / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"{key} = {value}\n" for key, value in entries.items()]
    (written / "entry_points.txt").write_text("[raymap.judges]\n" + "".join(lines), encoding="utf-8")
    return folder


def install_example(folder: Path) -> Path:
    """Install the guide's example, its entry points included."""
    project = tomllib.loads(example("toml"))["project"]
    return install(folder, example("python"), project["entry-points"]["raymap.judges"], project["name"])


def example_module() -> ModuleType:
    """Return the guide's example as a module of its own, to compute by it apart from raymap."""
    module = ModuleType("judges_of_the_guide")
    exec(compile(example("python"), str(GUIDE), "exec"), module.__dict__)
    return module


def near(*values: float | None) -> tuple[Any, ...]:
    """Return what the values of a row in float32 equal; a value that is not there must not be there."""
    return tuple(None if value is None else pytest.approx(value, rel=1e-6) for value in values)
