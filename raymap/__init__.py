"""Concept Entanglement Maps for personalized text-to-image models.

`open_run` gives a run folder's numbers. Importing this package loads neither torch nor Ray, nor anything else heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raymap.results import Run

__all__ = ["open_run"]


def open_run(folder: str | Path) -> Run:
    """Open a run folder: a path, or a URL as s3://bucket/run.

    Raises:
        InputError: no map lies there.
    """
    from raymap.results import open_folder
    from raymap.store.files import place

    return open_folder(place(str(folder)))
