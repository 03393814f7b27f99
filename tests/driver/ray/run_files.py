"""What tests compare of run folders."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def scores_of(run: Path) -> pl.DataFrame:
    """Return all score rows of a run."""
    return pl.concat([pl.read_ipc(p) for p in sorted((run / "scores").glob("*.arrow"))])


def arrow_files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every Arrow file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.arrow"))}
