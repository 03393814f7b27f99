"""Commands on a run folder: stats, report."""

from __future__ import annotations

from typing import Annotated

import typer

from raymap.cli.app import Folder, app, console
from raymap.cli.summary import print_comparison, print_summary
from raymap.errors import InputError
from raymap.store.files import place


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
    print_summary(statistics)
    if against:
        print_comparison(against_paper(statistics, read_study(root)))


@app.command()
def report(folder: Folder) -> None:
    """Write report/index.html anew from scores/ and noise.arrow."""
    from raymap.analysis.reduce import reduce_run
    from raymap.report.page import render

    root = place(folder)
    reduce_run(root)
    console.print(f"report: {render(root)}", soft_wrap=True)
