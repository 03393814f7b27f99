"""The figures of a report. The page, the exported files and the CSV of a figure all come from this list.

A new figure is one module in this package that defines `FIGURE`, and one line in OWN. An installed package adds its own
figure by an entry point of the group GROUP: `name = "module:FIGURE"`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import polars as pl
import polars.selectors as cs

from raymap.errors import InputError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure as Drawing

    from raymap.results import Run

OWN = (
    "raymap.report.figures.regions:FIGURE",
    "raymap.report.figures.heatmap:FIGURE",
    "raymap.report.figures.categories:FIGURE",
)
"""raymap's own figures, by name: matplotlib is loaded with the modules, only when figures are asked for."""
GROUP = "raymap.figures"
TIP = "tip: "


@dataclass(frozen=True)
class FigureData:
    """What a figure shows.

    Attributes:
        frame: the numbers, as they are exported as CSV.
        thresholds: values that the drawing marks, by the column of `frame` that they are thresholds of.
    """

    frame: pl.DataFrame
    thresholds: dict[str, float] = field(default_factory=dict)

    @property
    def blank(self) -> bool:
        """Whether there is no number to draw."""
        return not any(column.count() for column in self.frame.select(cs.numeric()))


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        key: the name of its files without their ending, such as `figure_1`: lower-case letters, digits and underscores.
        caption: what the page says below it.
        data: takes what it shows from a run; None if the run has nothing to show.
        draw: draws that with matplotlib. On the page black becomes the colour of the text and white that of the
            ground, so that the drawing follows the reader's light or dark scheme.
        on_page: whether the page shows the drawing. It does not if it shows the same data in a form of its own.
    """

    key: str
    caption: str
    data: Callable[[Run], FigureData | None]
    draw: Callable[[FigureData], Drawing]
    on_page: bool = True


def tip(artist: Artist, text: str) -> None:
    """Have the page show a text while the reader points at a part of a drawing."""
    artist.set_gid(f"{TIP}{text}")


def figures() -> tuple[Figure, ...]:
    """Return all figures: raymap's own, then those of installed packages by the name of their entry points.

    Raises:
        InputError: a package's figure cannot be loaded, is not a Figure, or has a key that is malformed or taken.
    """
    found: dict[str, Figure] = {}
    for name in OWN:
        figure: Figure = resolve_name(name)
        found[figure.key] = figure
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        where = f"figure {entry.name} of the package {entry.dist.name if entry.dist else '?'}"
        remedy = "correct or uninstall the package"
        try:
            offered: Any = entry.load()
        except Exception as error:  # whatever a package raises while it is imported
            raise InputError(where, f"cannot be loaded ({error!r})", remedy) from error
        if not isinstance(offered, Figure) or not re.fullmatch("[a-z0-9_]+", offered.key) or offered.key in found:
            problem = f"{entry.value} is not a raymap.report.figures.Figure with a key of its own"
            raise InputError(where, problem, remedy)
        found[offered.key] = offered
    return tuple(found.values())
