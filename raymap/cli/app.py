"""The command line's application: its name and help, the console, what commands have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

if TYPE_CHECKING:
    from raymap.display.progress import Progress

T = TypeVar("T")

app = typer.Typer(
    name="raymap",
    help="Concept Entanglement Maps: what personalizing a text-to-image model does to all the other prompts.\n\n"
    "Exit codes: 0 done, 1 above a limit of audit --fail-above, 2 bad input, 3 ended incomplete (the same command "
    "resumes), 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console() if sys.stdout.isatty() else Console(width=120)

Output = Annotated[
    str | None,
    typer.Option(help="Run folder: a path or a URL, as s3://bucket/run.", show_default="runs/<study name>"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print what would be done, stop.")]
Limit = Annotated[int | None, typer.Option(help="Keep only that many prompts, in turn from the categories.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value; overrides a key of the study.")]
StudyFile = Annotated[Path, typer.Argument(help="A study, YAML.")]
Folder = Annotated[str, typer.Argument(help="A run folder: a path, or a URL as s3://bucket/run.")]


def offline() -> None:
    """Keep the model libraries from asking a hub: nothing here needs one."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def watched(work: Callable[[Progress], T]) -> T:
    """Do work under a live progress display; an interruption ends with exit code 130."""
    from raymap.display.progress import LiveProgress

    try:
        with LiveProgress(console) as progress:
            return work(progress)
    except KeyboardInterrupt:  # caught here, because typer would end with 1
        console.print("interrupted; the same command goes on")
        raise typer.Exit(130) from None
