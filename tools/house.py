"""The package's structure in figures: rooms, arrows and floors of the import graph, and the walk of a value through it.

    python -m tools.house [CHECKOUT] [--walk raymap/cli/study.py:run:study] [--until raymap/driver/run.py]

A *room* is a module or a package directly below `raymap/`, or another top-level folder of Python code, tests left out.
An *arrow* runs from a room to one that it imports. A room's *floor* is one above the highest room that it imports. The
*walk* follows a parameter through the code as it is written, depth first and each function once: into every function of
the package that is called with the value, or with something that was made from it. A *stay* is a module in which the
walk remains for one or more calls; a *climb* is a step from a stay to a room on a higher floor. The figures are read
from the source text and nothing is run, so that any checkout can be measured.
"""

from __future__ import annotations

import argparse
import ast
import itertools
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import networkx as nx
from rich.console import Console
from rich.table import Table

PACKAGE = "raymap"
FOLDERS = (PACKAGE, "benchmarks", "jobs", "tools")
ENTRY = "raymap/cli/study.py:run:study"
HANDED_ON = "raymap/driver/run.py"
"""Where a prepared study goes to work: the walk of the front half ends there."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A source file: its functions by qualified name (`run`, `Study.device`), and what its imported names stand for."""

    path: str
    functions: dict[str, Function]
    imported: dict[str, tuple[str, str]]

    @property
    def room(self) -> str:
        """`raymap/study` for all modules below it, `raymap/errors.py` for a module of the root, else the folder."""
        parts = self.path.split("/")
        return "/".join(parts[:2]) if parts[0] == PACKAGE else parts[0]


@dataclass(frozen=True)
class House:
    """The modules of a checkout by their dotted names."""

    modules: dict[str, Module]

    @property
    def graph(self) -> nx.DiGraph:
        """An edge for every pair of rooms of which the first imports the second."""
        graph = nx.DiGraph()
        for module in self.modules.values():
            graph.add_node(module.room)
            for target, _ in module.imported.values():
                if target in self.modules and self.modules[target].room != module.room:
                    graph.add_edge(module.room, self.modules[target].room)
        return graph

    @property
    def floors(self) -> dict[str, int]:
        """The floor of every room, from 1; the rooms of a circle share one."""
        condensed = nx.condensation(self.graph.reverse())
        return {
            room: floor
            for floor, generation in enumerate(nx.topological_generations(condensed), start=1)
            for circle in generation
            for room in condensed.nodes[circle]["members"]
        }

    def room_of(self, path: str) -> str:
        """Return the room of a module's path."""
        return self.modules[_dotted(path)].room

    def resolve(self, module: Module, call: ast.Call) -> tuple[str, str] | None:
        """Return the module and the qualified name of the function that a call enters, None for one of elsewhere."""
        match call.func:
            case ast.Name(id=name):
                return self._named(module, name)
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                return self._member(module, owner, name) or self._method(name)
            case ast.Attribute(attr=name):
                return self._method(name)
        return None

    def _named(self, module: Module, name: str) -> tuple[str, str] | None:
        home, attribute = module.imported.get(name, (_dotted(module.path), name))
        held = self.modules.get(home)
        if held is None:
            return None
        if attribute in held.functions:
            return home, attribute
        builder = f"{attribute}.__init__"
        return (home, builder) if builder in held.functions else None

    def _member(self, module: Module, owner: str, name: str) -> tuple[str, str] | None:
        """Return a function of an imported module, or a method that is called on its class."""
        home, attribute = module.imported.get(owner, (_dotted(module.path), owner))
        qualified = f"{attribute}.{name}" if attribute else name
        return (home, qualified) if home in self.modules and qualified in self.modules[home].functions else None

    def _method(self, name: str) -> tuple[str, str] | None:
        """Return the only method of that name in the package; where there are several, the text does not tell which."""
        found = [
            (home, qualified)
            for home, module in self.modules.items()
            for qualified in module.functions
            if qualified.endswith(f".{name}")
        ]
        return found[0] if len(found) == 1 else None


@dataclass
class Walk:
    """The stays of a value: paths of modules in the order in which it enters them."""

    house: House
    until: str
    stays: list[str] = field(default_factory=list)
    _passed: set[tuple[str, str]] = field(default_factory=set)

    def enter(self, home: str, qualified: str, names: set[str]) -> None:
        """Follow the value into a function, whose parameters `names` hold it or something made from it."""
        module = self.house.modules[home]
        if self.stays and module.path == self.until:
            return
        if not self.stays or self.stays[-1] != module.path:
            self.stays.append(module.path)
        if (home, qualified) not in self._passed:
            self._passed.add((home, qualified))
            held = set(names)
            for statement in module.functions[qualified].body:
                self._follow(module, statement, held)

    def _follow(self, module: Module, node: ast.AST, held: set[str]) -> None:
        """Visit calls in the order of evaluation; names that are bound to something made from the value hold it too."""
        match node:
            case ast.Raise():
                pass  # the walk ends with what is refused; messages are no part of it
            case ast.Assign(targets=targets, value=value):
                self._bind(module, targets, value, held)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                self._bind(module, [target], value, held)
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                self._bind(module, [target], value, held)
                for child in ast.iter_child_nodes(node):
                    if child is not target and child is not value:
                        self._follow(module, child, held)
            case ast.GeneratorExp() | ast.ListComp() | ast.SetComp() | ast.DictComp():
                for child in (*node.generators, *(c for c in ast.iter_child_nodes(node) if c not in node.generators)):
                    self._follow(module, child, held)
            case ast.Call():
                for child in ast.iter_child_nodes(node):
                    self._follow(module, child, held)
                self._call(module, node, held)
            case _:
                for child in ast.iter_child_nodes(node):
                    self._follow(module, child, held)

    def _bind(self, module: Module, targets: list[ast.expr], value: ast.expr, held: set[str]) -> None:
        self._follow(module, value, held)
        if _mentions(value, held):
            held.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))

    def _call(self, module: Module, call: ast.Call, held: set[str]) -> None:
        entered = self.house.resolve(module, call)
        if entered is None:
            return
        home, qualified = entered
        arguments = self.house.modules[home].functions[qualified].args
        parameters = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        names = set()
        if parameters and parameters[0] in ("self", "cls"):
            if isinstance(call.func, ast.Attribute) and _mentions(call.func.value, held):
                names.add(parameters[0])
            del parameters[0]
        names |= {name for name, value in zip(parameters, call.args, strict=False) if _mentions(value, held)}
        names |= {keyword.arg for keyword in call.keywords if keyword.arg and _mentions(keyword.value, held)}
        if names:
            self.enter(home, qualified, names)

    @property
    def climbs(self) -> int:
        """How many steps lead to a room on a higher floor."""
        floors = self.house.floors
        rooms = [self.house.room_of(path) for path in self.stays]
        return sum(floors[after] > floors[before] for before, after in itertools.pairwise(rooms))


def read_house(root: Path) -> House:
    """Read all modules of a checkout, tests left out."""
    paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    found = {}
    for path in paths:
        place = path.relative_to(root).as_posix()
        found[_dotted(place)] = _module(place, ast.parse(path.read_text(encoding="utf-8")))
    return House({name: _with_submodules(module, found.keys()) for name, module in found.items()})


def walked(house: House, entry: str = ENTRY, until: str = HANDED_ON) -> Walk:
    """Return the walk of `PATH:FUNCTION:PARAMETER`, which ends at functions of the module `until`."""
    path, function, parameter = entry.split(":")
    walk = Walk(house, until)
    walk.enter(_dotted(path), function, {parameter})
    return walk


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _module(path: str, tree: ast.Module) -> Module:
    functions = dict(_functions(tree, ""))
    imported: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):  # imports within functions and for types alone count too
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: (alias.name, "") for alias in node.names}
    return Module(path, functions, imported)


def _with_submodules(module: Module, known: Set[str]) -> Module:
    """Tell modules that are imported from their package (`from raymap.base import folder`) from other names."""
    named = {
        name: (f"{home}.{attribute}", "") if f"{home}.{attribute}" in known else (home, attribute)
        for name, (home, attribute) in module.imported.items()
    }
    return replace(module, imported=named)


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))


def main() -> None:
    """Print the figures of a checkout, by default of the working folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", default=Path())
    parser.add_argument("--walk", default=ENTRY, help="PATH:FUNCTION:PARAMETER")
    parser.add_argument("--until", default=HANDED_ON, help="a module whose functions the walk does not enter")
    given = parser.parse_args()
    house, console = read_house(given.checkout), Console()
    graph, floors, walk = house.graph, house.floors, walked(house, given.walk, given.until)
    circles = [circle for circle in nx.strongly_connected_components(graph) if len(circle) > 1]
    loose = sum(room.count("/") == 1 and room.endswith(".py") for room in graph)
    table = Table("floor", "room", "imports rooms", "is imported by")
    for room in sorted(graph, key=lambda room: (-floors[room], room)):
        table.add_row(str(floors[room]), room, str(graph.out_degree(room)), str(graph.in_degree(room)))
    console.print(table)
    console.print(
        f"{graph.number_of_nodes()} rooms, of which {loose} are modules at the package's root; "
        f"{graph.number_of_edges()} arrows; {max(floors.values())} floors; {len(circles)} circles",
        soft_wrap=True,
    )
    rooms = len(set(walk.stays))
    console.print(f"walk of {given.walk}: {len(walk.stays)} stays in {rooms} modules, {walk.climbs} climbs")
    for number, path in enumerate(walk.stays, start=1):
        console.print(f"{number:4}. floor {floors[house.room_of(path)]:2} {path}", highlight=False)


if __name__ == "__main__":
    main()
