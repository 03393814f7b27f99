"""The command that measures attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from raymap.cli.app import DryRun, Limit, Output, Overrides, StudyFile, app, console, watched
from raymap.display.text import number
from raymap.store.files import place

if TYPE_CHECKING:
    from raymap.analysis.why.statistics import AttentionSummary


@app.command()
def attention(
    study: StudyFile,
    output: Output = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    overrides: Overrides = None,
) -> None:
    """Measure how a finished run's adapters shift cross-attention. Running it again does only what is missing."""
    from raymap.driver.attention import attend, check_attention, describe_attention
    from raymap.driver.prepare import prepare
    from raymap.study.file import load_study

    asked = load_study(study, tuple(overrides or ()), limit)
    target = place(output or f"runs/{asked.name}")
    prepared = prepare(asked)
    check_attention(prepared)
    console.print(describe_attention(prepared), highlight=False, soft_wrap=True)
    if not dry_run:
        from raymap.report.page import render

        _print(watched(lambda progress: attend(prepared, target, progress)))
        console.print(f"report: {render(target)}", soft_wrap=True, markup=False)


def _print(summary: AttentionSummary) -> None:
    """Print the shifts of each adapter, the identity control, and how the shifts rank prompts compared with E_sem."""
    table = Table(title="Shift of cross-attention by adapter (non-target prompts, all tokens)", title_justify="left")
    for name in ("adapter", "protocol", "|ΔA| x 1e4", "relative", "JS, bits"):
        table.add_column(name, justify="left" if name in ("adapter", "protocol") else "right")
    for row in summary["adapters"]:
        if row["tokens"] == "all":
            delta = row["delta"]["value"]
            scaled = number(None if delta is None else 1e4 * delta, 2)
            relative, js = number(row["relative"]["value"]), number(row["js"]["value"], 5)
            table.add_row(row["adapter"], row["protocol"], scaled, relative, js)
    console.print(table)
    control = summary["identity_control"]
    if control["present"]:
        zero = "exactly zero" if control["exact"] else f"NOT ZERO (|ΔA| up to {control['max_delta']:.2g})"
        console.print(f"identity control: {zero}", highlight=False)
    for line in summary["reading"]:
        console.print(line, highlight=False)
