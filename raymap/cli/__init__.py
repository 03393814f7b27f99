"""The command line: parses, calls, and turns errors into one line and an exit code."""

from __future__ import annotations

from rich.console import Console

from raymap.cli.app import app
from raymap.display.text import plain
from raymap.errors import RaymapError

# Each module registers its commands, in the order in which `raymap --help` lists them.
import raymap.cli.study  # isort: skip
import raymap.cli.attention  # isort: skip
import raymap.cli.audit  # isort: skip
import raymap.cli.adapters  # isort: skip
import raymap.cli.subjects  # isort: skip
import raymap.cli.results  # isort: skip
import raymap.cli.factorial  # isort: skip
import raymap.cli.bench  # noqa: F401  # isort: skip


def main() -> None:
    """Run the command line; a RaymapError becomes one line on stderr and its exit code."""
    try:
        app()
    except RaymapError as error:
        Console(stderr=True).print(
            plain(f"raymap: {error}"), style="red", highlight=False, markup=False, soft_wrap=True
        )
        raise SystemExit(error.exit_code) from None
