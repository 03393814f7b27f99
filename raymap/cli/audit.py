"""Commands that help to decide: audit (adapters against limits) and compare (one run against another)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from raymap.analysis.measures import IN_MAP
from raymap.cli.app import Base, DryRun, Folder, Limit, Output, Overrides, Weights, app, console
from raymap.cli.study import described, mapped
from raymap.cli.summary import print_verdict
from raymap.display.text import NOTHING, estimate, number, shown
from raymap.errors import InputError
from raymap.store.files import place, write_atomically

if TYPE_CHECKING:
    import polars as pl

    from raymap.analysis.decide.compare import AdapterDifferences, Difference

EXIT: dict[str | None, int] = {"fail": 1, "undecided": 4}
"""The exit codes of decisions other than to pass."""


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
            help="face, object or style: prompts of that kind are counted apart. Give it once, or once per adapter."
        ),
    ] = None,
    fail_above: Annotated[
        str | None,
        typer.Option(
            help="Limits such as falls=0,fall=0.02,prompts=3; exit code 1 if one is exceeded, 4 if it cannot be told."
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the verdict as JUnit XML.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the verdict as JSON.")] = None,
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
    from raymap.report.junit import junit as as_junit
    from raymap.store.files import as_json

    mapped(prepared, target)
    held = Audit.of(target, limits)
    if json:
        write_atomically(json, as_json(held.verdict))
    if junit:
        write_atomically(junit, as_junit(held.verdict, study.name, {p.id: p.text for p in study.prompts}))
    print_verdict(held.verdict)
    if held.decision in EXIT:
        raise typer.Exit(EXIT[held.decision])


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
