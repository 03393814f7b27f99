"""The commands that carry out a study: demo, train, run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raymap.cli.app import DryRun, Limit, Output, Overrides, StudyFile, app, console, watched
from raymap.cli.summary import print_summary
from raymap.display.text import LONG, shown
from raymap.errors import InputError
from raymap.store.files import is_local, place

if TYPE_CHECKING:
    from raymap.driver.prepare import Prepared
    from raymap.study.model import Study


@app.command()
def demo(output: Output = None) -> None:
    """Train three adapters on drawn subjects, draw the map, write the report: no network, no arguments."""
    from raymap.study.builtin import demo_study

    target = place(output or "runs/demo")
    if not is_local(target):
        raise InputError(
            f"--output {output}", "is not a local path, which the demo needs for its references", "give a folder"
        )
    mapped(described(demo_study(target / "references")), target)
    _print_verdict(target)


@app.command()
def train(
    study: StudyFile,
    output: Output = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    overrides: Overrides = None,
) -> None:
    """Train the study's missing adapters and stop; `run` with the same output continues from there."""
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
    price: Annotated[
        float | None, typer.Option(help="Price of a device's hour; --dry-run then says what the run costs.")
    ] = None,
    draw_anyway: Annotated[bool, typer.Option(help="Also draw images that are proved equal to the base's.")] = False,
) -> None:
    """Train, draw, score, map and report. Running it again does only what is missing."""
    changes = [*(overrides or ()), *(["draw_anyway=true"] if draw_anyway else [])]
    prepared, target = _prepared(study, output, changes, limit, dry_run)
    if dry_run:
        from raymap.driver.cost import estimate

        console.print(estimate(prepared, price).sentence, highlight=False, soft_wrap=True)
    else:
        mapped(prepared, target)
        _print_verdict(target)


def _print_verdict(folder: Path) -> None:
    from raymap.analysis.decide.verdict import read_verdict
    from raymap.cli.summary import print_verdict

    print_verdict(read_verdict(folder))


def _prepared(
    path: Path, output: str | None, overrides: list[str] | None, limit: int | None = None, dry: bool = False
) -> tuple[Prepared, Path]:
    """Read and check a study, and return it with its run folder."""
    from raymap.study.file import load_study

    target = place(output) if output else None
    prepared = described(load_study(path, tuple(overrides or ()), limit), dry)
    return prepared, target or Path("runs") / prepared.study.name


def described(study: Study, dry: bool = False) -> Prepared:
    """Check everything that a study names and print what it asks for; in a dry run, also what is still missing."""
    from raymap.driver.prepare import prepare

    prepared = prepare(study, dry)
    console.print(prepared.sentence, highlight=False, soft_wrap=True)
    if prepared.choice:
        console.print(prepared.choice, highlight=False, soft_wrap=True)
    for what in prepared.missing:
        console.print(
            f"[yellow]missing, before it can run:[/yellow] {shown(what, LONG)}", highlight=False, soft_wrap=True
        )
    for remark in prepared.remarks:
        console.print(f"[yellow]note:[/yellow] {shown(remark, LONG)}", highlight=False, soft_wrap=True)
    for prompt in prepared.too_long:
        problem = f"{prompt.id} is longer than the text encoder reads, and the rest is ignored: {shown(prompt.text)}"
        console.print(f"[yellow]warning:[/yellow] {problem}", highlight=False, soft_wrap=True)
    return prepared


def mapped(prepared: Prepared, output: Path) -> None:
    """Carry out a prepared study in a run folder and print its summary."""
    from raymap.driver.run import run
    from raymap.store.folder import RunFolder

    statistics = watched(lambda progress: run(prepared, output, progress))
    print_summary(statistics)
    console.print(f"report: {shown(str(RunFolder(output).report), LONG)}", highlight=False, soft_wrap=True)
