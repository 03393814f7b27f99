"""The command line's application: its name, help and console, how errors end it, and what its commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from typer.core import TyperGroup

from raymap.display.text import plain
from raymap.errors import RaymapError

if TYPE_CHECKING:
    from raymap.display.progress import Progress

T = TypeVar("T")

console = Console() if sys.stdout.isatty() else Console(width=120)


class Commands(TyperGroup):
    """All commands: the one place that turns an error or an interruption into a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RaymapError as error:
            line = plain(f"raymap: {error}")
            Console(stderr=True).print(line, style="red", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            console.print("interrupted; the same command resumes")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="raymap",
    cls=Commands,
    help="Concept Entanglement Maps: what personalizing a text-to-image model does to all the other prompts.\n\n"
    "Exit codes: 0 done, 1 above a limit of audit --fail-above, 2 bad input, 3 ended incomplete (the same command "
    "resumes), 4 the seeds cannot tell whether a limit of audit is kept, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Output = Annotated[
    str | None,
    typer.Option(help="Run folder: a path, or a URL such as s3://bucket/run.", show_default="runs/<study name>"),
]
Base = Annotated[str, typer.Option(help="embedded, a diffusers folder, a single-file checkpoint, or a hub id.")]
Weights = Annotated[str | None, typer.Option(help="A single file whose denoiser takes the place of the base's.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and print what would be done, then stop.")]
Limit = Annotated[int | None, typer.Option(help="Keep only this many prompts, taken in turn from the categories.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value: overrides a key of the study.")]
StudyFile = Annotated[Path, typer.Argument(help="A study: a YAML file.")]
Folder = Annotated[str, typer.Argument(help="A run folder: a path, or a URL such as s3://bucket/run.")]


def watched(work: Callable[[Progress], T]) -> T:
    """Do work under a live progress display."""
    from raymap.display.progress import LiveProgress

    with LiveProgress(console) as progress:
        return work(progress)
