"""Writes the tables of shapes of the outlines in raymap/base/outlines, whose components it builds without storage.

python -m tools.outlines
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping

from raymap.base.folder import OUTLINES
from raymap.base.header import Shapes
from raymap.base.parts import parts_of
from raymap.base.shapes import TABLE, built, index_of

Named = dict[tuple[str, ...], tuple[int, ...]]
"""Shapes by the parts of a name between its dots; a part can be a number, or a run of numbers (`{0-18}`)."""


def main() -> None:
    """Write the table of every outline."""
    for folder in sorted(path.parent for path in OUTLINES.glob("*/model_index.json")):
        components = (*parts_of(index_of(folder)).adapted, "vae")
        (folder / TABLE).write_text(as_table({name: built(folder, name) for name in components}), encoding="utf-8")


def as_table(shapes: Mapping[str, Shapes]) -> str:
    """Return the table of the shapes of components' weights, with one line per entry."""
    components = []
    for component, own in shapes.items():
        lines = (f"    {json.dumps(entry)}: {json.dumps(shape)}" for entry, shape in sorted(_entries(own).items()))
        components.append(f"  {json.dumps(component)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(components) + "\n}\n"


def _entries(shapes: Shapes) -> Shapes:
    """Return the entries that stand for weights; runs of numbers are joined at the last place of a name first."""
    named = {tuple(name.split(".")): shape for name, shape in shapes.items()}
    for place in reversed(range(max(map(len, named)))):
        named = _joined(named, place)
    return {".".join(parts): shape for parts, shape in named.items()}


def _joined(named: Named, place: int) -> Named:
    """Return entries in which those of one shape that differ only by consecutive numbers at a place are one."""
    joined: Named = {}
    alike = defaultdict(list)
    for parts, shape in named.items():
        if place < len(parts) and parts[place].isdigit():
            alike[parts[:place], parts[place + 1 :], shape].append(int(parts[place]))
        else:
            joined[parts] = shape
    for (before, after, shape), numbers in alike.items():
        # Consecutive numbers are all as far ahead of their place in the list, which tells one run from the next.
        for _, run in itertools.groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
            own = [number for _, number in run]
            joined[*before, str(own[0]) if len(own) == 1 else f"{{{own[0]}-{own[-1]}}}", *after] = shape
    return joined


if __name__ == "__main__":
    main()
