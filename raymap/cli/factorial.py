"""The command that tests composition against abstractness."""

from __future__ import annotations

from rich.table import Table

from raymap.cli.app import Folder, app, console
from raymap.display.text import number
from raymap.store.files import place


@app.command()
def factorial(folder: Folder) -> None:
    """Test, on a run of the suite embedded-factorial, whether composition or abstractness makes prompts fragile."""
    from raymap.analysis.why.factorial import reduce_factorial

    found = reduce_factorial(place(folder))
    table = Table(title="Cell means, all methods", title_justify="left")
    for name in ("measure", "kind", "make", "mean", "low", "high"):
        table.add_column(name)
    for row in found["cells"]:
        if row["method"] == "all":
            held = row["estimate"]
            table.add_row(
                row["measure"], row["kind"], row["make"], *map(number, (held["value"], held["low"], held["high"]))
            )
    console.print(table)
    for line in found["reading"]:
        console.print(line, highlight=False)
