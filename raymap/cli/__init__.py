"""The command line: parses arguments, calls the package and prints what it answers."""

from __future__ import annotations

from raymap.cli.app import app

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
    """Run the command that the program was called with; it ends by SystemExit with the command's exit code."""
    app()
