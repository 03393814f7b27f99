"""Commands that decide: audit (adapters against limits) and compare (a run against a run)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from raymap.cli.app import DryRun, Folder, Limit, Output, Overrides, app, console
from raymap.cli.study import described, mapped
from raymap.display.text import shown
from raymap.errors import InputError
from raymap.store.files import place, write_atomically

if TYPE_CHECKING:
    import polars as pl

    from raymap.analysis.decide.gate import Verdict

FIRST = 5
"""So many prompts are printed of a longer list; files hold all."""


@app.command()
def audit(
    adapter: Annotated[list[str], typer.Option(help="An adapter file or folder, or NAME=PATH; may be given often.")],
    base: Annotated[str, typer.Option(help="embedded, a diffusers folder, or a hub id.")] = "embedded",
    suite: Annotated[
        str | None,
        typer.Option(help="A built-in suite or a file.", show_default="quick; on the embedded base embedded-quick"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds a prompt.")] = 4,
    category: Annotated[
        list[str] | None,
        typer.Option(help="face, object or style: the adapters' own prompts don't count. Once, or once an adapter."),
    ] = None,
    fail_above: Annotated[
        str | None, typer.Option(help="Limits, as e_sem=0.03,e_per=0.5,prompts=3; exit code 1 above one.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write a summary as JSON.")] = None,
    output: Output = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    overrides: Overrides = None,
) -> None:
    """Measure adapters that are there already, and hold them against limits; no study, no training."""
    from raymap.analysis.decide.gate import AuditLimits, parse_limits

    limits = AuditLimits() if fail_above is None else parse_limits(fail_above)
    if junit and not limits.given:
        raise InputError("--junit", "has no limits to report on", "give --fail-above too")
    for option, path in (("--junit", junit), ("--json", json)):
        if path and path.is_dir():
            raise InputError(f"{option} {path}", "is a folder", "give a file")
    from raymap.driver.cost import estimate
    from raymap.report import gate
    from raymap.study.builtin import audit_study

    study = audit_study(base, adapter, category or (), suite, seeds, overrides or (), limit)
    target = place(output or f"runs/{study.name}")
    prepared = described(study)
    console.print(estimate(prepared).sentence, highlight=False, soft_wrap=True)
    if dry_run:
        return
    statistics = mapped(prepared, target)
    cells = gate.flagged(target)
    found = gate.verdicts(cells, statistics, limits)
    if json:
        write_atomically(json, gate.summary(cells, statistics, limits, found))
    if junit:
        write_atomically(junit, gate.junit(found, study.name))
    _print_shifted(cells)
    _print_verdicts(found)
    if not all(verdict.passed for verdict in found):
        raise typer.Exit(1)


def _print_shifted(cells: pl.DataFrame) -> None:
    """Say, for each adapter, how many non-target prompts shifted, which most, and by what that was judged."""
    for part in cells.partition_by("adapter", maintain_order=True):
        hits = part.filter(part["shifted_e_sem"] | part["shifted_e_per"]).sort("e_sem", descending=True)
        tested = part["tested_e_sem"].any() or part["tested_e_per"].any()
        by = (
            "threshold and test"
            if tested
            else "threshold alone: too few seeds, or too many prompts, to test single ones"
        )
        names = ", ".join(shown(prompt) for prompt in hits["prompt"][:FIRST])
        line = f"{shown(part['adapter'][0])}: {hits.height} of {part.height} non-target prompts shifted ({by})"
        console.print(f"{line}: {names}" if names else line, highlight=False, soft_wrap=True)


def _print_verdicts(found: Sequence[Verdict]) -> None:
    """Print a row an adapter and limit, with the prompts that exceed it."""
    from raymap.report.gate import message

    if not found:
        return
    table = Table(title="Gate", title_justify="left", show_lines=True)
    for name in ("adapter", "verdict", "found", "prompts to look at"):
        table.add_column(name, overflow="fold")
    for verdict in found:
        first, more = verdict.offenders[:FIRST], len(verdict.offenders) - FIRST
        prompts = [f"{shown(o.prompt)} (E_sem {o.e_sem:.4f}, E_per {o.e_per:.3f})" for o in first]
        prompts += [f"and {more} more"] if more > 0 else []
        word = "[green]passed[/green]" if verdict.passed else "[red]exceeded[/red]"
        table.add_row(shown(verdict.adapter), word, message(verdict), "\n".join(prompts))
    console.print(table)


@app.command()
def compare(before: Folder, after: Folder) -> None:
    """Compare two runs: paired differences by adapter, and the prompts that got worse or better."""
    from raymap.analysis.decide.compare import TOP, compare_runs

    found = compare_runs(place(before), place(after))
    seeds = f"{found.seeds} seeds" if found.seeds else "no seed"
    console.print(f"{found.prompts} non-target prompts and {seeds} in common; after minus before", highlight=False)
    for side, names in zip(("before", "after"), found.alone, strict=True):
        if names:
            console.print(f"only {side}: {shown(', '.join(names))}", highlight=False)
    if found.settings:
        console.print(f"drawn otherwise: {shown('; '.join(found.settings))}", highlight=False)
    table = Table(title="Differences (positive: more disruption)", title_justify="left")
    for column in ("adapter", "measure", "before", "after", "difference [95 %]", "p", "p (Holm)"):
        table.add_column(column, justify="left" if column in ("adapter", "measure") else "right", overflow="fold")
    for row in [*found.adapters, *([{"adapter": "all", **found.overall}] if found.overall else [])]:
        for measure, label in (("e_sem", "E_sem"), ("e_sem_signed", "signed"), ("e_per", "E_per")):
            table.add_row(shown(row["adapter"]), label, *_difference(row[measure]))
    console.print(table)
    reached = (found.overall or found.adapters[0])["e_sem"]
    console.print(f"intervals: {reached['method']}", highlight=False)
    for title, cells in (("worse", found.worse()), ("better", found.better())):
        _print_changed(f"Prompts that got {title} (E_sem; the first {TOP})", cells)


def _difference(e: dict[str, Any]) -> list[str]:
    interval = "" if e["low"] is None else f" [{e['low']:+.4f}, {e['high']:+.4f}]"
    ends = ["–" if e[key] is None else f"{e[key]:.4f}" for key in ("before", "after")]
    value = "–" if e["value"] is None else f"{e['value']:+.4f}{interval}"
    return [*ends, value, *("–" if e[key] is None else f"{e[key]:.3g}" for key in ("p", "p_holm"))]


def _print_changed(title: str, cells: pl.DataFrame) -> None:
    """Print cells that changed, largest change first."""
    if cells.is_empty():
        return
    table = Table(title=title, title_justify="left")
    for column in ("adapter", "prompt", "before", "after", "change", "q", "E_per", "q"):
        table.add_column(column, justify="left" if column in ("adapter", "prompt") else "right", overflow="fold")
    for c in cells.iter_rows(named=True):
        q = ["–" if c[f"q_{m}"] is None else f"{c[f'q_{m}']:.3g}" for m in ("e_sem", "e_per")]
        ends = [f"{c['e_sem_before']:.4f}", f"{c['e_sem_after']:.4f}", f"{c['e_sem']:+.4f}"]
        table.add_row(shown(c["adapter"]), shown(c["prompt"]), *ends, q[0], f"{c['e_per']:+.4f}", q[1])
    console.print(table)
