"""House rules that a reader may rely on."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import raymap

PACKAGE = Path(raymap.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
STAGES = (
    "errors", "display", "embedded", "study", "scoring", "plan", "store", "base", "analysis", "results", "adapters",
    "drawing", "report", "personalize", "actors", "cluster", "testing", "bench", "driver", "cli",
)  # fmt: skip
"""The package's stages in the order in which they may import each other."""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_ray_is_imported_only_where_actors_are_launched_and_streamed() -> None:
    using = {p.relative_to(PACKAGE).as_posix() for p in MODULES if "ray" in imports(p)}
    peer = "bench/peers/ray_data.py"  # another program, beside which raymap is measured
    assert using == {peer, *(f"cluster/{name}.py" for name in ("launch", "metrics", "stream", "training"))}


def raymap_imports(path: Path) -> set[str]:
    """Return the stages of raymap that a module imports from, imports within functions and for types included."""
    stages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "raymap":
            stages |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raymap."):
            stages.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            stages |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("raymap.")}
    return stages


def test_a_stage_imports_only_stages_before_it() -> None:
    rank = {name: k for k, name in enumerate(STAGES)}
    for path in MODULES:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        for other in raymap_imports(path):
            assert other == own or rank[other] < rank[own], f"{path.relative_to(PACKAGE)}: {own} imports {other}"


def test_the_root_holds_the_public_names_the_errors_and_the_results_alone() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "errors", "results"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports within functions and for types alone count too."""
    names = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in MODULES}
    graph = {
        name: {
            next(m for m in (f"{node.module}.{alias.name}", node.module, f"{node.module}.__init__") if m in names)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "raymap"
            for alias in node.names
        }
        for name, path in names.items()
    }
    assert sum(map(len, graph.values())) > 500
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_module_grows_beyond_four_hundred_lines() -> None:
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_the_lock_file_pins_by_hash_and_names_no_registry() -> None:
    lock = (PACKAGE.parent / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index-url" not in lock
    pins = [line for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    assert lock.count("--hash=sha256:") >= len(pins) > 100
    installer = (PACKAGE.parent / "installer.lock").read_text().partition("\n")[2]
    assert installer.startswith("uv==")
    assert f"\n{installer}" in lock, "uv is installed as requirements.lock pins it"
