"""Runs and audits for scripts and notebooks: a study or adapter files go in, a finished run comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console

from raymap.analysis.decide.answers import Decision, Verdict
from raymap.analysis.decide.compare import Comparison, compare_runs
from raymap.analysis.decide.limits import AuditLimits
from raymap.analysis.decide.verdict import limits_of, write_verdict
from raymap.display.progress import LiveProgress, Progress
from raymap.driver import run as runs
from raymap.driver.prepare import prepare
from raymap.report.page import write_page
from raymap.results import Run, open_folder
from raymap.store.files import place
from raymap.study.builtin import audit_study
from raymap.study.file import load_study
from raymap.study.model import Study


@dataclass(frozen=True)
class Audit:
    """An audit's run and its verdict, which verdict.json in the run folder holds, too."""

    run: Run
    verdict: Verdict

    @classmethod
    def of(cls, folder: Path, limits: AuditLimits) -> Self:
        """Hold a finished run against limits, write verdict.json, and show other limits in the report, too."""
        before = limits_of(folder)
        verdict = write_verdict(folder, limits)
        held = open_folder(folder)
        if before != limits:
            write_page(held)
        return cls(held, verdict)

    @property
    def decision(self) -> Decision | None:
        """`pass`, `fail` or `undecided`; None where no limit was given."""
        return self.verdict["decision"]


def run(study: Study | str | Path, output: str | Path | None = None, *, quiet: bool = False) -> Run:
    """Train what is missing, draw, score, map and report, as `raymap run` does; running it again resumes.

    Args:
        study: a study, or the path of its YAML file.
        output: the run folder, a path or a URL; `runs/<study name>` in the working folder by default.
        quiet: show no progress.

    Raises:
        InputError: something that the study names cannot be used; nothing has started by then.
        IncompleteRunError: some batches failed; what was drawn is kept, and the same call resumes.
    """
    asked = study if isinstance(study, Study) else load_study(study)
    target = place(str(output or f"runs/{asked.name}"))
    prepared = prepare(asked)
    with _shown(quiet) as progress:
        runs.run(prepared, target, progress)
    return open_folder(target)


def audit(
    adapters: str | Path | Sequence[str | Path],
    base: str = "embedded",
    *,
    limits: AuditLimits | None = None,
    categories: Sequence[str] = (),
    suite: str | None = None,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    weights: str | None = None,
    output: str | Path | None = None,
    quiet: bool = False,
) -> Audit:
    """Measure existing adapters and check them against limits, as `raymap audit` does.

    Args:
        adapters: files or folders, or `name=path` to give an adapter another name than its file's.
        base: `embedded`, a diffusers folder, a single-file checkpoint, or a hub id.
        limits: what each adapter may reach.
        categories: the subjects' categories (`face`, `object`, `style`): none, one for all, or one per adapter.
        suite: a built-in suite or a file.
        seeds: how many seeds each prompt is drawn with.
        overrides: `key=value` pairs of the study, as for `raymap run --set`.
        weights: a single file whose denoiser takes the place of the base's.
        output: the run folder, a path or a URL; `runs/audit-<names>` in the working folder by default.
        quiet: show no progress.

    Raises:
        InputError: an argument, a file or the base cannot be used; nothing has started by then.
        IncompleteRunError: some batches failed; what was drawn is kept, and the same call resumes.
    """
    named = [str(path) for path in ([adapters] if isinstance(adapters, str | Path) else adapters)]
    chosen = {} if seeds is None else {"seeds": seeds}
    study = audit_study(base, named, categories, suite, overrides=overrides, weights=weights, **chosen)
    return Audit.of(run(study, output, quiet=quiet).folder, limits or AuditLimits())


def compare(before: str | Path, after: str | Path) -> Comparison:
    """Compare two run folders, as `raymap compare` does: paired differences, after minus before.

    Raises:
        InputError: a folder that holds no run, or two runs that cannot be compared, with the reasons.
    """
    return compare_runs(place(str(before)), place(str(after)))


@contextmanager
def _shown(quiet: bool) -> Iterator[Progress]:
    if quiet:
        yield Progress()
    else:
        with LiveProgress(Console()) as progress:
            yield progress
