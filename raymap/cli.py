"""The command line: parses, calls, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raymap.errors import InputError, RaymapError
from raymap.store.files import is_local, place

if TYPE_CHECKING:
    from raymap.progress import Progress

T = TypeVar("T")

app = typer.Typer(
    name="raymap",
    help="Concept Entanglement Maps: what personalizing a text-to-image model does to all the other prompts.\n\n"
    "Exit codes: 0 done, 2 bad input, 3 ended incomplete (the same command resumes), 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console() if sys.stdout.isatty() else Console(width=120)

Output = Annotated[
    str | None,
    typer.Option(
        help="Run folder: a path or a URL, as s3://bucket/run. [default: runs/<study name>]", show_default=False
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print what would be done, stop.")]
Limit = Annotated[int | None, typer.Option(help="Keep only that many prompts, in turn from the categories.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value; overrides a key of the study.")]
StudyFile = Annotated[Path, typer.Argument(help="A study, YAML.")]
Folder = Annotated[str, typer.Argument(help="A run folder: a path, or a URL as s3://bucket/run.")]


@app.command()
def demo(output: Output = None) -> None:
    """Train three adapters on drawn subjects, draw the map, write the report: no network, no arguments."""
    _offline()
    from raymap.demo import demo_study

    target = place(output or "runs/demo")
    if not is_local(target):
        raise InputError(f"--output {output}", "is no local path, where the demo draws its references", "give a folder")
    _map(_described(demo_study(target / "references")), target)


@app.command()
def train(study: StudyFile, output: Output = None, dry_run: DryRun = False, overrides: Overrides = None) -> None:
    """Train the study's adapters that are missing, nothing else; `run` with the same output goes on from there."""
    from raymap import run as runs

    prepared, target = _prepared(study, output, overrides)
    if not dry_run:
        for folder in _watched(lambda progress: runs.train(prepared, target, progress)):
            console.print(f"adapter: {folder}", soft_wrap=True)


@app.command()
def run(
    study: StudyFile,
    output: Output = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    overrides: Overrides = None,
    draw_anyway: Annotated[bool, typer.Option(help="Draw images that are proved equal to the base's, too.")] = False,
) -> None:
    """Train what is missing, draw, score, map, report. Running it again does only what is missing."""
    changes = [*(overrides or ()), *(["draw_anyway=true"] if draw_anyway else [])]
    prepared, target = _prepared(study, output, changes, limit)
    if not dry_run:
        _map(prepared, target)


@app.command()
def check(
    adapters: Annotated[list[Path], typer.Argument(help="Adapter files, or folders of them.")],
    base: Annotated[str, typer.Option(help="embedded, a diffusers folder, or a hub id.")] = "embedded",
    suite: Annotated[str, typer.Option(help="A suite in whose prompts no trigger may be found.")] = "embedded",
    trigger: Annotated[str | None, typer.Option(help="Names a learned token anew.")] = None,
) -> None:
    """Say what is in adapter files, whether they fit a base, and what to be wary of; exit code 2 if one doesn't."""
    if base == "embedded":
        _offline()
    from raymap.adapters.check import examine
    from raymap.adapters.skeleton import COMPONENTS, parameters, skeleton_of
    from raymap.diffusion.base import load, resolve
    from raymap.study import read_suite

    prompts = [prompt["text"] for prompt in read_suite(suite, "--suite", Path())]
    folder = resolve(base)
    pipeline, skeleton = load(folder), skeleton_of(folder)
    weights = dict(parameters({name: getattr(pipeline, name) for name in COMPONENTS}))
    findings = [examine(path, skeleton, weights, prompts, trigger) for path in adapters]
    _print_findings(findings, base)
    if any(finding.problem for finding in findings):
        raise typer.Exit(2)


@app.command()
def stats(
    folder: Folder,
    against: Annotated[str | None, typer.Option(help="`paper`: set the published figures beside the run's.")] = None,
) -> None:
    """Write map.arrow, shifts.arrow and statistics.json anew from scores/ and noise.arrow."""
    from raymap.analysis.against import against_paper
    from raymap.analysis.reduce import read_study, reduce_run

    if against not in (None, "paper"):
        raise InputError(f"--against {against}", "is nothing to compare with", "write --against paper")
    root = place(folder)
    statistics = reduce_run(root)
    _print_summary(statistics)
    if against:
        _print_comparison(against_paper(statistics, read_study(root)))


@app.command()
def report(folder: Folder) -> None:
    """Write report/index.html anew from scores/ and noise.arrow."""
    from raymap.analysis.reduce import reduce_run
    from raymap.report.page import render

    root = place(folder)
    reduce_run(root)
    console.print(f"report: {render(root)}", soft_wrap=True)


def _print_comparison(rows: list[dict[str, Any]]) -> None:
    """Print the paper's figures beside the run's."""
    table = Table(title="Beside the paper", title_justify="left", show_lines=True)
    for name in ("what", "place", "paper", "this run", "verdict", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(row[key] or "–")) for key in ("what", "place", "paper", "ours", "verdict", "why")))
    console.print(table)


def _print_findings(findings: list[Any], base: str) -> None:
    """Print a row an adapter: what it is, what it touches, why it is refused."""
    table = Table(title=f"Adapters for {base}", title_justify="left", show_lines=True)
    for name in ("adapter", "method", "rank", "alpha", "weights", "numbers", "‖ΔW‖/‖W‖", "trigger", "notes"):
        table.add_column(name, overflow="fold")
    for f in findings:
        notes = [f"[red]refused: {escape(f.problem)}[/red]"] if f.problem else []
        notes += [f"trained for {escape(f.trained_for)}"] if f.trained_for else []
        notes += [f"licence: {escape(f.licence)}"] if f.licence else []
        notes += [f"[yellow]{escape(warning)}[/yellow]" for warning in f.warnings]
        numbers = [
            ", ".join(str(rank) for rank in f.ranks),
            ", ".join(f"{alpha:g}" for alpha in f.alphas),
            "" if f.problem else str(f.weights),
            "" if f.problem else f"{f.size:,}",
            "" if f.norm is None else f"{f.norm:.4f}",
        ]
        table.add_row(escape(str(f.path)), f.method, *numbers, escape(", ".join(f.triggers)), "\n".join(notes))
    console.print(table)


def _offline() -> None:
    """Keep the model libraries from asking a hub: nothing here needs one."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _prepared(
    path: Path, output: str | None, overrides: list[str] | None, limit: int | None = None
) -> tuple[Any, Path]:
    """Read and check a study; return it with its run folder."""
    from raymap.study import load_study

    study = load_study(path, tuple(overrides or ()), limit)
    target = place(output or f"runs/{study.name}")
    if study.base == study.clip == study.lpips == "embedded":
        _offline()
    return _described(study), target


def _described(study: Any) -> Any:
    """Check all that a study names and print what it asks for."""
    from raymap.run import describe, prepare

    prepared = prepare(study)
    console.print(describe(prepared), highlight=False, soft_wrap=True)
    return prepared


def _watched(work: Callable[[Progress], T]) -> T:
    """Do work under a live progress display; an interruption ends with exit code 130."""
    from raymap.progress import Progress

    try:
        with Progress(console) as progress:
            return work(progress)
    except KeyboardInterrupt:  # caught here, because typer would end with 1
        console.print("interrupted; the same command goes on")
        raise typer.Exit(130) from None


def _map(prepared: Any, output: Path) -> None:
    from raymap.report.page import report_path
    from raymap.run import run

    _print_summary(_watched(lambda progress: run(prepared, output, progress)))
    console.print(f"report: {report_path(output)}", soft_wrap=True)


def _print_summary(statistics: dict[str, Any]) -> None:
    """Print the map's summary: adapters, noise floor, control, fragile and robust prompts."""
    table = Table(title="Entanglement by adapter (non-target prompts)", title_justify="left")
    for name in ("adapter", "E_sem", "signed", "E_per", "E", "above τ_sem", "above τ_per"):
        table.add_column(name, justify="left" if name == "adapter" else "right")
    for a in statistics["adapters"]:
        table.add_row(
            a["adapter"],
            _estimate(a["e_sem"], 4),
            "–" if a["e_sem_signed"]["value"] is None else f"{a['e_sem_signed']['value']:+.4f}",
            _estimate(a["e_per"], 3),
            _estimate(a["e"] | {"low": None}, 3),
            f"{a['above_tau_sem']}/{a['e_sem']['n']}",
            f"{a['above_tau_per']}/{a['e_per']['n']}",
        )
    console.print(table)
    floor = statistics["noise_floor"]
    if floor["pairs"]:
        taus = f"τ_sem = {floor['tau_sem']['value']:.4f}, τ_per = {floor['tau_per']['value']:.3f}"
        console.print(f"noise floor ({floor['pairs']} seed pairs): {taus}", highlight=False)
    control = statistics["identity_control"]
    if control["present"]:
        zero = f"NOT ZERO (E_sem up to {control['max_e_sem']:.2g}, E_per up to {control['max_e_per']:.2g})"
        console.print(f"identity control: {'exactly zero' if control['exact'] else zero}", highlight=False)
    for key, label in (("most_fragile", "most fragile"), ("most_robust", "most robust")):
        rows = ", ".join(f"{r['prompt']} ({r['e_sem']:.3f})" for r in statistics[key][:3])
        console.print(f"{label}: {rows}", highlight=False)


def _estimate(e: dict[str, Any], digits: int) -> str:
    if e["value"] is None:
        return "–"
    low_high = f" [{e['low']:.{digits}f}, {e['high']:.{digits}f}]" if e["low"] is not None else ""
    return f"{e['value']:.{digits}f}{low_high}"


def main() -> None:
    """Run the command line; a RaymapError becomes one line on stderr and its exit code."""
    try:
        app()
    except RaymapError as error:
        Console(stderr=True).print(f"raymap: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from None
