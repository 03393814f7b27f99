"""The commands about subjects: fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raymap.cli.app import app, console
from raymap.display.text import LONG, shown

subjects = typer.Typer(help="Public reference images of a study's subjects.", no_args_is_help=True)
app.add_typer(subjects, name="subjects")


@subjects.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Subjects of the catalogue.", show_default="all of them")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Where the images are written, one folder per subject.")] = Path(
        "references"
    ),
    research_only: Annotated[
        bool,
        typer.Option(
            "--research-only",
            help="Also fetch images of people who were not asked, or with no licence to pass them on: you use them "
            "for research and pass on neither them nor what is trained on them.",
        ),
    ] = False,
    catalogue: Annotated[
        Path | None, typer.Option(help="A catalogue, YAML.", show_default="the subjects of jobs/paper.yaml")
    ] = None,
) -> None:
    """Fetch reference images from their public sources; exit code 2 unless all that was asked for is there."""
    from raymap.personalize.references import fetch as fetching
    from raymap.personalize.references.catalogue import PAPER, read_catalogue

    asked = read_catalogue(catalogue or PAPER)
    entries = asked.chosen(names or [])
    outcomes = []
    for outcome in fetching.fetch(asked, entries, to, research_only):
        colour = "green" if outcome.usable else "yellow" if outcome.state in ("left out", "missing") else "red"
        state = f"[{colour}]{outcome.state}[/{colour}]"
        console.print(f"{outcome.subject}: {state}: {shown(outcome.said, LONG)}", highlight=False, soft_wrap=True)
        outcomes.append(outcome)
    lacking = [outcome.subject for outcome in outcomes if not outcome.usable]
    line = f"{len(outcomes) - len(lacking)} of {len(outcomes)} subjects are in {shown(str(to), LONG)}"
    console.print(f"{line}; not there: {', '.join(lacking)}" if lacking else line, highlight=False, soft_wrap=True)
    if lacking:
        raise typer.Exit(2)
