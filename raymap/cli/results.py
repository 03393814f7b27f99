"""Commands on a run folder: stats, report and show."""

from __future__ import annotations

from typing import Annotated

import typer

from raymap.cli.app import Folder, app, console
from raymap.cli.summary import print_comparison, print_pair, print_summary, print_verdict
from raymap.errors import InputError
from raymap.store.files import place, write_atomically


@app.command()
def stats(
    folder: Folder,
    against: Annotated[
        str | None, typer.Option(help="`paper`: set the paper's published figures beside the run's.")
    ] = None,
) -> None:
    """Write a run's map, tests and statistics again from its scores, and those of interventions and attention."""
    from raymap.analysis.read import read_study
    from raymap.analysis.reduce import reduce_run
    from raymap.analysis.why.attention import reduce_attention
    from raymap.analysis.why.interventions import reduce_interventions
    from raymap.report.against import against_paper
    from raymap.store.files import files_in

    if against not in (None, "paper"):
        raise InputError(f"--against {against}", "is not something to compare with", "write --against paper")
    root = place(folder)
    statistics = reduce_run(root)
    for part, reduce_part in (("interventions", reduce_interventions), ("attention/scores", reduce_attention)):
        if files_in(root / part, ".arrow"):
            reduce_part(root)
    print_summary(statistics)
    if against:
        print_comparison(against_paper(statistics, read_study(root)))


@app.command()
def report(
    folder: Folder,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Figures as png, svg or pdf, tables as csv, md or latex; several with commas."),
    ] = None,
) -> None:
    """Write report/index.html again from a run's scores, print the verdict, and write figures and tables on request."""
    from raymap.analysis.reduce import reduce_run
    from raymap.report.export.write import export, formats_of
    from raymap.report.page import write_page
    from raymap.results import read_run

    wanted = formats_of(formats or ())
    root = place(folder)
    reduce_run(root)
    run = read_run(root)
    print_summary(run.statistics)
    print_verdict(run.verdict)
    for path in export(run, wanted):
        console.print(f"written: {path}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"report: {write_page(run)}", soft_wrap=True, markup=False)


@app.command()
def show(
    folder: Folder,
    prompt: Annotated[str, typer.Argument(help="A prompt's id, its text, or words that no other prompt contains.")],
    adapter: Annotated[str, typer.Argument(help="The name of an adapter.")],
    output: Annotated[str | None, typer.Option(help="The PNG to write. [default: in report/pairs/]")] = None,
) -> None:
    """Write the pair of one cell, its base image, adapted image and their difference, as one PNG."""
    from raymap.report.pair import composed, default_path, find_pair
    from raymap.results import read_run

    run = read_run(place(folder))
    pair = find_pair(run, prompt, adapter)
    path = place(output) if output else default_path(run, pair)
    write_atomically(path, composed(pair))
    print_pair(pair.numbers)
    console.print(f"pair: {path}", soft_wrap=True, markup=False)
