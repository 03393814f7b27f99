"""Writes figures and tables beside the page, in the formats that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raymap.errors import InputError
from raymap.report.export import figures, tables
from raymap.report.source import Run
from raymap.store.files import write_atomically

FORMATS = (*figures.FORMATS, *tables.FORMATS)


def formats_of(given: Sequence[str]) -> tuple[str, ...]:
    """Return the formats of a command line's values, each a name or several with commas between.

    Raises:
        InputError: one is unknown.
    """
    names = tuple(dict.fromkeys(name.strip().lower() for value in given for name in value.split(",") if name.strip()))
    for name in names:
        if name not in FORMATS:
            raise InputError(f"--format {name}", "is unknown", f"use one or more of {', '.join(FORMATS)}")
    return names


def export(run: Run, formats: Sequence[str]) -> list[Path]:
    """Write Figures 1 to 3 and Tables 1 to 3 into report/, and return the paths.

    Picture formats hold the figures, text formats the tables; CSV the numbers behind the figures too.

    Raises:
        InputError: the run has no adapter but controls.
    """
    if formats and not run.statistics["adapters"]:
        raise InputError(str(run.folder.root), "holds no adapter but controls", "run a study that has one")
    folder = run.folder.report.parent
    files: dict[Path, bytes] = {}
    drawn = [kind for kind in formats if kind in figures.FORMATS]
    for name, draw in figures.figures(run).items() if drawn else ():
        figure = draw()
        files |= {folder / f"{name}.{kind}": figures.rendered(figure, kind) for kind in drawn}
    for kind in formats:
        if kind in tables.FORMATS:
            listed = tables.tables(run) | (tables.figure_data(run) if kind == "csv" else {})
            suffix = tables.SUFFIXES[kind]
            files |= {folder / f"{name}.{suffix}": tables.written(table, kind) for name, table in listed.items()}
    for path, content in files.items():
        write_atomically(path, content)
    return list(files)
