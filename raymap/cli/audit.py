"""Commands that help to decide: audit (adapters against limits) and compare (one run against another)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from raymap.analysis.measures import E_PER, E_SEM, IN_MAP
from raymap.cli.app import Base, DryRun, Folder, Limit, Output, Overrides, Weights, app, console
from raymap.cli.study import described, mapped
from raymap.display.text import NOTHING, estimate, number, shown
from raymap.errors import InputError
from raymap.store.files import place, write_atomically

if TYPE_CHECKING:
    import polars as pl

    from raymap.analysis.decide.compare import AdapterDifferences, Difference
    from raymap.analysis.decide.gate import Verdict

FIRST = 5
"""How many prompts of a longer list are printed; files hold all of them."""


@app.command()
def audit(
    adapter: Annotated[
        list[str],
        typer.Option(
            help="A file, a folder, a hub id (org/name, org/name:FILE) or a URL, or NAME=PATH; may be repeated."
        ),
    ],
    base: Base = "embedded",
    weights: Weights = None,
    suite: Annotated[
        str | None,
        typer.Option(help="A built-in suite or a file.", show_default="quick, or embedded-quick on the embedded base"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds per prompt.")] = 4,
    category: Annotated[
        list[str] | None,
        typer.Option(
            help="face, object or style: prompts of that kind are not counted. Give it once, or once per adapter."
        ),
    ] = None,
    fail_above: Annotated[
        str | None, typer.Option(help="Limits such as e_sem=0.03,e_per=0.5,prompts=3; exit code 1 if one is exceeded.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write a summary as JSON.")] = None,
    output: Output = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    overrides: Overrides = None,
) -> None:
    """Measure existing adapters and check them against limits, without a study file and without training."""
    from raymap.analysis.decide.limits import AuditLimits, parse_limits

    limits = AuditLimits() if fail_above is None else parse_limits(fail_above)
    if junit and not limits.given:
        raise InputError("--junit", "has no limits to report on", "give --fail-above too")
    for option, path in (("--junit", junit), ("--json", json)):
        if path and path.is_dir():
            raise InputError(f"{option} {path}", "is a folder", "give a file")
    from raymap.driver.cost import estimate as estimate_cost
    from raymap.study.builtin import audit_study

    study = audit_study(base, adapter, category or (), suite, seeds, overrides or (), limit, weights)
    target = place(output or f"runs/{study.name}")
    prepared = described(study, dry_run)
    console.print(estimate_cost(prepared).sentence, highlight=False, soft_wrap=True)
    if dry_run:
        return
    from raymap.driver.commands import Audit  # loads what a dry run does without: scipy, polars and the report
    from raymap.report import gate
    from raymap.results import open_folder

    mapped(prepared, target)
    held = Audit.of(open_folder(target), limits)
    if json:
        write_atomically(json, gate.summary(held.shifted, held.run.statistics, limits, held.verdicts))
    if junit:
        write_atomically(junit, gate.junit(held.verdicts, study.name))
    _print_shifted(held.shifted)
    _print_verdicts(held.verdicts)
    if held.passed is False:
        raise typer.Exit(1)


def _print_shifted(cells: pl.DataFrame) -> None:
    """Say for each adapter how many non-target prompts shifted, which ones most, and how that was judged."""
    for part in cells.partition_by("adapter", maintain_order=True):
        hits = part.filter(part["shifted_e_sem"] | part["shifted_e_per"]).sort("e_sem", descending=True)
        tested = part["tested_e_sem"].any() or part["tested_e_per"].any()
        by = (
            "threshold and test"
            if tested
            else "threshold alone: too few seeds, or too many prompts, to test single prompts"
        )
        names = ", ".join(shown(prompt) for prompt in hits["prompt"][:FIRST])
        line = f"{shown(part['adapter'][0])}: {hits.height} of {part.height} non-target prompts shifted ({by})"
        console.print(f"{line}: {names}" if names else line, highlight=False, soft_wrap=True)


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print one row per adapter and limit, with the prompts to look at if the limit is exceeded."""
    from raymap.report.gate import message

    if not verdicts:
        return
    table = Table(title="Limits", title_justify="left", show_lines=True)
    for name in ("adapter", "verdict", "measured", "prompts to look at"):
        table.add_column(name, overflow="fold")
    for verdict in verdicts:
        first, more = verdict.offenders[:FIRST], len(verdict.offenders) - FIRST
        prompts = [
            f"{shown(o.prompt)} (E_sem {number(o.e_sem, E_SEM.digits)}, E_per {number(o.e_per, E_PER.digits)})"
            for o in first
        ]
        prompts += [f"and {more} more"] if more > 0 else []
        word = "[green]passed[/green]" if verdict.passed else "[red]exceeded[/red]"
        table.add_row(shown(verdict.adapter), word, message(verdict), "\n".join(prompts))
    console.print(table)


@app.command()
def compare(before: Folder, after: Folder) -> None:
    """Compare two runs: paired differences by adapter, and the prompts that got worse or better."""
    from raymap.analysis.decide.compare import TOP, compare_runs

    comparison = compare_runs(place(before), place(after))
    seeds = f"{comparison.seeds} seeds" if comparison.seeds else "no seed"
    console.print(f"{comparison.prompts} non-target prompts and {seeds} in common; after minus before", highlight=False)
    for side, names in zip(("before", "after"), comparison.alone, strict=True):
        if names:
            console.print(f"only {side}: {shown(', '.join(names))}", highlight=False)
    if comparison.settings:
        console.print(f"different settings: {shown('; '.join(comparison.settings))}", highlight=False)
    table = Table(title="Differences (positive: more disruption)", title_justify="left")
    for column in ("adapter", "measure", "before", "after", "difference [95 %]", "p", "p (Holm)"):
        table.add_column(column, justify="left" if column in ("adapter", "measure") else "right", overflow="fold")
    overall: list[AdapterDifferences] = [{"adapter": "all", **comparison.overall}] if comparison.overall else []
    for row in [*comparison.adapters, *overall]:
        for measure, difference in zip(IN_MAP, (row["e_sem"], row["e_sem_signed"], row["e_per"]), strict=True):
            table.add_row(shown(row["adapter"]), measure.label, *_difference(difference))
    console.print(table)
    reached = (comparison.overall or comparison.adapters[0])["e_sem"]
    console.print(f"intervals: {reached['method']}", highlight=False)
    for title, cells in (("worse", comparison.worse()), ("better", comparison.better())):
        _print_changed(f"Prompts that got {title} (E_sem; the first {TOP})", cells)


def _difference(e: Difference) -> list[str]:
    return [number(e["before"]), number(e["after"]), estimate(e, signed=True), _p(e["p"]), _p(e["p_holm"])]


def _p(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def _print_changed(title: str, cells: pl.DataFrame) -> None:
    """Print cells that changed, the largest change first."""
    if cells.is_empty():
        return
    table = Table(title=title, title_justify="left")
    for column in ("adapter", "prompt", "before", "after", "change", "q", "E_per", "q"):
        table.add_column(column, justify="left" if column in ("adapter", "prompt") else "right", overflow="fold")
    for c in cells.iter_rows(named=True):
        sem = (number(c["e_sem_before"]), number(c["e_sem_after"]), number(c["e_sem"], signed=True), _p(c["q_e_sem"]))
        per = (number(c["e_per"], signed=True), _p(c["q_e_per"]))
        table.add_row(shown(c["adapter"]), shown(c["prompt"]), *sem, *per)
    console.print(table)
