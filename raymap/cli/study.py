"""Commands that do a study: demo, train, run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymap.cli.app import DryRun, Limit, Output, Overrides, StudyFile, app, console, offline, watched
from raymap.cli.summary import print_summary
from raymap.display.text import LONG, shown
from raymap.errors import InputError
from raymap.store.files import is_local, place

if TYPE_CHECKING:
    from raymap.analysis.statistics import Statistics


@app.command()
def demo(output: Output = None) -> None:
    """Train three adapters on drawn subjects, draw the map, write the report: no network, no arguments."""
    offline()
    from raymap.study.builtin import demo_study

    target = place(output or "runs/demo")
    if not is_local(target):
        raise InputError(f"--output {output}", "is no local path, where the demo draws its references", "give a folder")
    mapped(described(demo_study(target / "references")), target)


@app.command()
def train(
    study: StudyFile,
    output: Output = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    overrides: Overrides = None,
) -> None:
    """Train the study's adapters that are missing, nothing else; `run` with the same output goes on from there."""
    from raymap.driver import run as runs

    prepared, target = _prepared(study, output, overrides, limit, dry_run)
    if not dry_run:
        for folder in watched(lambda progress: runs.train(prepared, target, progress)):
            console.print(f"adapter: {folder}", soft_wrap=True)


@app.command()
def run(
    study: StudyFile,
    output: Output = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    overrides: Overrides = None,
    price: Annotated[float | None, typer.Option(help="Of a device's hour; --dry-run then says what all costs.")] = None,
    draw_anyway: Annotated[bool, typer.Option(help="Draw images that are proved equal to the base's, too.")] = False,
) -> None:
    """Train what is missing, draw, score, map, report. Running it again does only what is missing."""
    changes = [*(overrides or ()), *(["draw_anyway=true"] if draw_anyway else [])]
    prepared, target = _prepared(study, output, changes, limit, dry_run)
    if dry_run:
        from raymap.driver.cost import estimate

        console.print(estimate(prepared).sentence(price), highlight=False, soft_wrap=True)
    else:
        mapped(prepared, target)


def _prepared(
    path: Path, output: str | None, overrides: list[str] | None, limit: int | None = None, dry: bool = False
) -> tuple[Any, Path]:
    """Read and check a study; return it with its run folder."""
    from raymap.study.file import load_study

    study = load_study(path, tuple(overrides or ()), limit)
    target = place(output or f"runs/{study.name}")
    if study.base == study.clip == study.lpips == "embedded":
        offline()
    return described(study, dry), target


def described(study: Any, dry: bool = False) -> Any:
    """Check all that a study names and print what it asks for, and in a dry run what a run would still need."""
    from raymap.driver.prepare import describe, prepare, too_long

    prepared = prepare(study, dry)
    console.print(describe(prepared), highlight=False, soft_wrap=True)
    for what in prepared.missing:
        console.print(
            f"[yellow]missing, before it can run:[/yellow] {shown(what, LONG)}", highlight=False, soft_wrap=True
        )
    for prompt in too_long(prepared):
        problem = f"{prompt.id} is longer than the text encoder reads; the rest does not count: {shown(prompt.text)}"
        console.print(f"[yellow]warning:[/yellow] {problem}", highlight=False, soft_wrap=True)
    return prepared


def mapped(prepared: Any, output: Path) -> Statistics:
    """Do a prepared study in a run folder, print its summary and return its statistics."""
    from raymap.driver.run import run
    from raymap.store.folder import RunFolder

    statistics = watched(lambda progress: run(prepared, output, progress))
    print_summary(statistics)
    console.print(f"report: {shown(str(RunFolder(output).report), LONG)}", highlight=False, soft_wrap=True)
    return statistics
