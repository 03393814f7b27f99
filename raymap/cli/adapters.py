"""The command that inspects adapter files: check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from raymap.cli.app import Base, Weights, app, console
from raymap.display.text import LONG, shown


@app.command()
def check(
    adapters: Annotated[list[Path], typer.Argument(help="Adapter files, or folders of them.")],
    base: Base = "embedded",
    weights: Weights = None,
    suite: Annotated[str, typer.Option(help="A suite whose prompts may hold no trigger.")] = "embedded",
    trigger: Annotated[str | None, typer.Option(help="Gives a learned token another name.")] = None,
) -> None:
    """Say what adapter files hold, whether they fit a base, and what to be wary of; exit code 2 if one does not fit."""
    from raymap.driver.check import check_files

    findings = check_files(adapters, base, suite, trigger, weights)
    _print_findings(findings, f"{base} with {weights}" if weights else base)
    if any(finding.problem for finding in findings):
        raise typer.Exit(2)


def _print_findings(findings: list[Any], base: str) -> None:
    """Print one row per adapter: what it is, what it changes, or why it is refused."""
    table = Table(title=f"Adapters for {base}", title_justify="left", show_lines=True)
    for name in (
        "adapter",
        "method",
        "rank",
        "alpha",
        "weights",
        "numbers",
        "‖ΔW‖/‖W‖",
        "trigger",
        "notes",
    ):
        table.add_column(name, overflow="fold")
    for f in findings:
        notes = [f"[red]refused: {shown(f.problem, LONG)}[/red]"] if f.problem else []
        survives = ", ".join(f"{kind} {share:.0%}" for kind, share in f.survives.items())
        notes += [f"of its update survive: {survives}"] if survives else []
        notes += [f"trained for {shown(f.trained_for)}"] if f.trained_for else []
        notes += [f"licence: {shown(f.licence)}"] if f.licence else []
        notes += [f"consent: {shown(f.consent)}"] if f.consent else []
        notes += [f"[yellow]{shown(warning, LONG)}[/yellow]" for warning in f.warnings]
        numbers = [
            ", ".join(str(rank) for rank in f.ranks),
            ", ".join(f"{alpha:g}" for alpha in f.alphas),
            "" if f.problem else str(f.weights),
            "" if f.problem else f"{f.size:,}",
            "" if f.norm is None else f"{f.norm:.4f}",
        ]
        table.add_row(shown(str(f.path), LONG), f.method, *numbers, shown(", ".join(f.triggers)), "\n".join(notes))
    console.print(table)
