"""Writes figures and tables beside the page, in the formats that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raymap.errors import InputError
from raymap.report import table
from raymap.report.export.tables import tables
from raymap.report.figures import figures, render
from raymap.results import Run
from raymap.store.files import write_atomically

FORMATS = (*render.FORMATS, *table.FORMATS)


def formats_of(given: Sequence[str]) -> tuple[str, ...]:
    """Return the formats of a command line's values, each of which is one format or several with commas between.

    Raises:
        InputError: a format is unknown.
    """
    names = tuple(dict.fromkeys(name.strip().lower() for value in given for name in value.split(",") if name.strip()))
    for name in names:
        if name not in FORMATS:
            raise InputError(f"--format {name}", "is unknown", f"use one or more of {', '.join(FORMATS)}")
    return names


def export(run: Run, formats: Sequence[str]) -> list[Path]:
    """Write a run's figures and tables into report/, and return the paths.

    Image formats hold the figures and text formats the tables; CSV also holds the numbers of the figures.

    Raises:
        InputError: the run has no adapter but controls, or the figure of an installed package cannot be loaded.
    """
    if formats and not run.statistics["adapters"]:
        raise InputError(str(run.folder), "holds no adapter but controls", "run a study that has an adapter")
    images = [kind for kind in formats if kind in render.FORMATS]
    files: dict[str, bytes] = {}
    for figure in figures() if images or "csv" in formats else ():
        shown = figure.data(run)
        if shown is None:
            continue
        if images:
            drawing = figure.draw(shown)
            files |= {f"{figure.key}.{kind}": render.as_file(drawing, kind) for kind in images}
        if "csv" in formats:
            files[f"{figure.key}.csv"] = shown.frame.write_csv().encode()
    for kind in formats:
        if kind in table.FORMATS:
            suffix = table.SUFFIXES[kind]
            files |= {f"{name}.{suffix}": table.written(held, kind) for name, held in tables(run).items()}
    paths = {run.files.report.with_name(name): content for name, content in files.items()}
    for path, content in paths.items():
        write_atomically(path, content)
    return list(paths)
