"""What a report is made from, apart from images."""

from __future__ import annotations

import shutil
from pathlib import Path


def copied(finished: Path, target: Path) -> Path:
    """Copy what the report of a finished run is made from, except images."""
    for name in ("run.json", "statistics.json", "map.arrow", "shifts.arrow", "study.yaml", "noise.arrow"):
        shutil.copy(finished / name, target)
    shutil.copytree(finished / "scores", target / "scores")
    return target
