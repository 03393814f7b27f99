"""The command that inspects adapter files: check."""

from __future__ import annotations

from typing import Annotated

import typer

from raymap.cli.app import Weights, app, console
from raymap.errors import InputError


@app.command()
def check(
    adapters: Annotated[
        list[str], typer.Argument(help="Adapter files or folders of them, hub ids (org/name, org/name:FILE) or URLs.")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            help="embedded, a diffusers folder, a single-file checkpoint, or a hub id.",
            show_default="the kind of base that each file was made for",
        ),
    ] = None,
    weights: Weights = None,
    suite: Annotated[str, typer.Option(help="A suite whose prompts may hold no trigger.")] = "embedded",
    trigger: Annotated[str | None, typer.Option(help="Gives a learned token another name.")] = None,
    full: Annotated[
        bool | None,
        typer.Option(
            "--full/--headers", help="Read all numbers, or headers alone.", show_default="headers of many files"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
) -> None:
    """Say what adapter files are, what they were made for, whether a base can take them, and what to be wary of.

    A folder that holds many adapters is listed by their headers. Exit code 2 if one of the files cannot be used.
    """
    if weights and not base:
        raise InputError("--weights", "stands without the base whose denoiser it replaces", "give --base too")
    from raymap.adapters.fetched import local_adapter
    from raymap.adapters.glance import adapters_in
    from raymap.cli.findings import print_findings, print_list, records
    from raymap.driver.check import check_files, look

    given = [local_adapter(adapter) for adapter in adapters]
    found = [path for place in given for path in adapters_in(place)]
    if full is None:
        full = found == given
    findings = check_files(found, base, suite, trigger, weights) if full else ()
    seen = () if full else look(found, base, weights)
    if json:
        typer.echo(records(findings or seen))
    elif full:
        print_findings(console, findings)
    else:
        print_list(console, seen)
    if any(one.problem for one in (*findings, *seen)):
        raise typer.Exit(2)
