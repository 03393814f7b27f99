"""docs/results.md from the Arrow files under docs/results/.

    python -m tools.results_page --collect RUNS/paper RUNS/why RUNS/factorial   # reduce run folders into docs/results/
    python -m tools.results_page --plan                          # estimate what jobs/paper.yaml would take
    python -m tools.results_page                                 # recompute everything, write docs/results.md
    python -m tools.results_page --check                         # only compare; exit code 1 if anything differs

The document calls a run by the name of its folder: `paper` is the study of the paper's shape, `why` the study with
interventions and attention, and `factorial` has the adapters of `why` on the factorial suite, so it is run last.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from raymap.errors import InputError
from raymap.report.figures import figures
from raymap.report.figures.render import as_file
from raymap.report.page import write_page
from raymap.results import read_run
from raymap.store.files import as_json, write_atomically
from tools.results_page.cost import planned
from tools.results_page.document import DOCS, PAPER, rebuild
from tools.results_page.reduced import collect

LIMIT = 10_000_000
"""How many bytes docs/results/ may hold."""
FIGURES = ("figure_1", "figure_2")
"""The figures that the document shows."""


def collect_all(sources: Sequence[Path], results: Path) -> int:
    """Reduce run folders into docs/results/, and return how many bytes it then holds.

    Raises:
        InputError: a folder cannot be reduced, or docs/results/ would exceed LIMIT; nothing is written then.
    """
    names = [source.resolve().name for source in sources]
    with tempfile.TemporaryDirectory(prefix="raymap-results-") as temporary:
        for name, source in zip(names, sources, strict=True):
            target = Path(temporary) / name
            collect(source, target)
            if name == PAPER:
                _illustrate(target)
        others = [path for path in results.glob("*") if path.name not in names]
        total = sum(map(size, [Path(temporary), *others]))
        if total > LIMIT:
            problem = f"would hold {total / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f} MB"
            raise InputError(str(results), problem, "collect runs with fewer prompts, seeds or interventions")
        for name in names:
            shutil.rmtree(results / name, ignore_errors=True)
            shutil.copytree(Path(temporary) / name, results / name)
    return total


def _illustrate(folder: Path) -> None:
    """Write a reduced run's report and the figures that the document shows."""
    run = read_run(folder)
    page = write_page(run)
    for figure in figures():
        if figure.key in FIGURES and (shown := figure.data(run)) is not None:
            write_atomically(page.with_name(f"{figure.key}.png"), as_file(figure.draw(shown), "png"))


def size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    return sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())


def main(arguments: Sequence[str] | None = None, docs: Path = DOCS) -> int:
    """Do what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--collect", type=Path, nargs="+", metavar="RUN", help="run folders to reduce into docs/results/"
    )
    parser.add_argument("--plan", action="store_true", help="estimate what jobs/paper.yaml would take")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if anything differs")
    given = parser.parse_args(arguments)
    results = docs / "results"
    try:
        if given.collect:
            print(f"{results}: {collect_all(given.collect, results) / 1e6:.2f} MB")
        elif given.plan:
            write_atomically(results / "plan.json", as_json(planned()))
            print(f"written: {results / 'plan.json'}")
        else:
            rebuilt = rebuild(results)
            stale = rebuilt.differences(docs)
            if not given.check:
                rebuilt.write(docs)
            for name in stale:
                print(f"{'differs' if given.check else 'written'}: {name}")
            return int(given.check and bool(stale))
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
