"""The command that measures setups, and other programs beside raymap: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from raymap.cli.app import Overrides, app, console
from raymap.errors import IncompleteRunError, InputError, RaymapError
from raymap.store.files import is_local, place

REPEATS = 3
PROMPTS, QUICK_PROMPTS = 60, 2
"""How many prompts the study of raymap and its peers has, each with four seeds and four models."""


@app.command()
def bench(
    setups: Annotated[
        Path | None, typer.Argument(help="A matrix of setups, YAML: each key to a value or a list of values.")
    ] = None,
    output: Annotated[
        str, typer.Option(help="Folder of the record; a setup that it holds is not measured again.")
    ] = "runs/bench",
    repeats: Annotated[int, typer.Option(min=1, help="How often each setup is measured.")] = REPEATS,
    quick: Annotated[bool, typer.Option("--quick", help="Only the embedded base, two batch sizes, few steps.")] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also run raymap and other programs on one study with the last setup.")
    ] = False,
    price: Annotated[
        float | None, typer.Option(help="Price of a worker's hour; the table then shows the cost.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the setups and measure nothing.")] = False,
    overrides: Overrides = None,
) -> None:
    """Measure setups for drawing: images/s, share of the device's peak, swaps, scoring, memory, start-up."""
    from raymap.bench import plot, record
    from raymap.bench.measure import measure
    from raymap.bench.setups import fetch_bases, read_setups

    folder = place(output)
    if not is_local(folder):
        raise InputError(f"--output {output}", "is not a local path", "give a folder")
    asked = read_setups(setups, tuple(overrides or ()), quick)
    if peers:
        _check_peers(asked[-1])
    fetch_bases(asked)
    held = record.Record(folder)
    names, failed = record.varied(asked), 0
    for number, setup in enumerate(asked, 1):
        missing = held.missing(setup, repeats)
        said = f"setup {number} of {len(asked)}: {record.label(setup, names)}"
        console.print(said + ("" if missing else "; measured already"), highlight=False, markup=False, soft_wrap=True)
        if dry_run or not missing:
            continue
        try:
            held.add(measure(setup, missing))
        except (RuntimeError, OSError, RaymapError) as error:  # out of memory, say: the other setups may do
            failed += 1
            problem = f"failed: {' '.join(str(error).split())[:400] or type(error).__name__}"
            console.print(problem, style="red", highlight=False, markup=False, soft_wrap=True)
    if dry_run:
        return
    if any(held.of(setup) for setup in asked):
        console.print(record.table(held, asked, price))
        plot.draw(held, asked, folder / "bench.png")
        console.print(f"record: {held.path}; image: {folder / 'bench.png'}", highlight=False, soft_wrap=True)
    if peers:
        _peers(asked[-1], repeats, QUICK_PROMPTS if quick else PROMPTS, folder)
    if failed:
        raise IncompleteRunError(f"{failed} of {len(asked)} setups failed; the same command tries them again")


def _check_peers(setup: Any) -> None:
    """Refuse a setup that no study can have: `raymap run` takes the base's own size and torch's choice of attention."""
    for key, fits, right in (
        ("attention", setup.attention == "auto", "auto"),
        ("resolution", setup.resolution is None, "the base's own"),
        ("batch_size", setup.batch_size > 1, "2 or more, for pairs of seeds"),
    ):
        if not fits:
            problem = f"{key} {getattr(setup, key)} of the last setup is impossible in a study"
            raise InputError("--peers", problem, f"make it {right}")


def _peers(setup: Any, repeats: int, prompts: int, output: Path) -> None:
    from raymap.bench.peers import contest

    held = contest.Contest(setup, prompts, output)
    programs = contest.order(contest.available(setup))
    if "ray-data" not in programs:
        console.print("Ray Data is left out: it needs pandas, pip install 'ray\\[data]'", highlight=False)
    for repeat in range(repeats):
        for program in programs:
            console.print(f"repeat {repeat + 1} of {repeats}: {contest.PROGRAMS[program]}", highlight=False)
            held.run(program, repeat)
    console.print(contest.table(held))
    console.print(f"record: {held.path}", highlight=False, soft_wrap=True)
