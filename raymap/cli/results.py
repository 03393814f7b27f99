"""Commands on a run folder: stats, report, show."""

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
    against: Annotated[str | None, typer.Option(help="`paper`: set the published figures beside the run's.")] = None,
) -> None:
    """Write map, tests and statistics anew from scores/ and noise.arrow, interventions and attention from theirs."""
    from raymap.analysis.paper.against import against_paper
    from raymap.analysis.read import read_study
    from raymap.analysis.reduce import reduce_run
    from raymap.analysis.why.attention import reduce_attention
    from raymap.analysis.why.interventions import reduce_interventions
    from raymap.store.files import files_in

    if against not in (None, "paper"):
        raise InputError(f"--against {against}", "is nothing to compare with", "write --against paper")
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
        typer.Option("--format", help="Figures as png, svg, pdf, tables as csv, md, latex; several with commas."),
    ] = None,
) -> None:
    """Write report/index.html anew from scores/ and noise.arrow, print the verdict; figures and tables on request."""
    from raymap.analysis.reduce import reduce_run
    from raymap.report.export.write import export, formats_of
    from raymap.report.page import write_page
    from raymap.report.source import read_run
    from raymap.report.verdict import verdict

    wanted = formats_of(formats or ())
    root = place(folder)
    reduce_run(root)
    run = read_run(root)
    print_verdict(verdict(run), run.statistics)
    for path in export(run, wanted):
        console.print(f"written: {path}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"report: {write_page(run)}", soft_wrap=True, markup=False)


@app.command()
def show(
    folder: Folder,
    prompt: Annotated[str, typer.Argument(help="A prompt's id, its text, or words that only it holds.")],
    adapter: Annotated[str, typer.Argument(help="An adapter's name.")],
    output: Annotated[str | None, typer.Option(help="The PNG to write. [default: in report/pairs/]")] = None,
) -> None:
    """Write a cell's pair, base beside adapted picture beside their difference, as one PNG."""
    from raymap.report.pair import composed, default_path, find_pair
    from raymap.report.source import read_run

    run = read_run(place(folder))
    pair = find_pair(run, prompt, adapter)
    path = place(output) if output else default_path(run, pair)
    write_atomically(path, composed(pair))
    print_pair(pair.numbers)
    console.print(f"pair: {path}", soft_wrap=True, markup=False)
