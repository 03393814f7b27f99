"""The record of a measurement: lines of JSON, from which a later call knows what is measured already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console


class Record:
    """Rows of figures under the names of parts and setups, in one file that each row is appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._console = Console(width=200, soft_wrap=True)

    def __contains__(self, name: str) -> bool:
        """Return whether there is a row of this name without an error."""
        return any(row["name"] == name and "error" not in row for row in self.rows)

    def add(self, name: str, figures: Mapping[str, Any]) -> None:
        """Append a row, and print it."""
        row = {"name": name, **figures}
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        told = ", ".join(f"{key} {_short(value)}" for key, value in figures.items())
        self._console.print(f"{name}: {told}", highlight=False, markup=False)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
