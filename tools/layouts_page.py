"""Writes the table of placed layouts into docs/adapters.md: `python -m tools.layouts_page`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from raymap.adapters.placement import place
from tests.adapters.published import FIRSTS, OWN, TEXT, layouts, skeleton_of

PAGE = Path("docs/adapters.md")
START, END = "<!-- layouts -->\n", "<!-- /layouts -->\n"
GROUPS = (OWN, FIRSTS, TEXT)
"""The columns of the table."""


def main() -> None:
    """Place every layout and write the table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + START + table() + END + after, encoding="utf-8")


def table() -> str:
    """Return the table: a row for each model, a column for each group of layouts."""
    counted: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for layout in layouts():
        skeleton = skeleton_of(layout.model)
        modules = layout.modules(skeleton)
        counted[layout.model][layout.group].append((len(place(modules, skeleton)[0]), len(modules)))
    rows = [("model", *GROUPS), ("---", *["---:"] * len(GROUPS))]
    rows += [(model, *(cell(groups[group]) for group in GROUPS)) for model, groups in counted.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cell(counts: list[tuple[int, int]]) -> str:
    """Return how many modules of how many were placed, and in how many spellings; the fewest, where these differ."""
    if not counts:
        return "–"
    found, modules = min(counts, key=lambda count: count[0] / count[1])
    return f"{found:,} of {modules:,} in {len(counts)}"


if __name__ == "__main__":
    main()
