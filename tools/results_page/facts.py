"""How recomputed runs came about: their images, proofs, sessions and devices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from raymap.analysis.numerics.exchange import least_matching_p, least_sign_flip_p
from raymap.analysis.statistics import Statistics
from raymap.analysis.why.statistics import FactorialSummary
from raymap.results import Run, read_run
from raymap.study.methods.method import CONTROL
from tools.results_page.reduced import read_factorial


@dataclass(frozen=True)
class Facts:
    """How a run came about.

    Attributes:
        images: all images that the map rests on, including the base's.
        proved: how many of them were not drawn, because they are the base's by proof.
        recorded: how many were committed in sessions that ended by themselves; a killed session leaves no record.
        drawing_s: seconds of drawing, scoring and starting workers in these sessions; `training_s` of training.
        seconds: the time of all sessions, those of interventions included.
        varied: the images of interventions, drawn for `variants` variants of adapters.
    """

    prompts: int
    seeds: int
    adapters: int
    controls: int
    images: int
    proved: int
    recorded: int
    seconds: float
    drawing_s: float
    training_s: float
    variants: int
    varied: int
    devices: tuple[str, ...]
    workers: int
    threads: tuple[int, ...]

    @property
    def share_proved(self) -> float:
        """The share of all images that are identical by proof."""
        return self.proved / self.images

    @property
    def lost(self) -> int:
        """The images that sessions without a record committed."""
        return self.images - self.recorded

    @property
    def rate(self) -> float | None:
        """Images committed per second of drawing, including proved ones."""
        return self.recorded / self.drawing_s if self.drawing_s else None

    @property
    def drawn_rate(self) -> float | None:
        """The same without proved images, of which every block holds the same share."""
        return self.rate * (1 - self.share_proved) if self.rate else None


@dataclass(frozen=True)
class Study:
    """A recomputed run folder and what is said about it; `factorial` is None if it has no such test."""

    run: Run
    facts: Facts
    factorial: FactorialSummary | None

    @property
    def statistics(self) -> Statistics:
        """What statistics.json holds."""
        return self.run.statistics

    @property
    def headline(self) -> str:
        """The report's first sentence."""
        return self.run.verdict["headline"]

    @property
    def least_p(self) -> tuple[float, float]:
        """The least p-values that a single cell can have with the run's seeds: of its meaning and of its mean score."""
        return least_matching_p(self.facts.seeds), least_sign_flip_p(self.facts.seeds)


def read_studies(root: Path) -> dict[str, Study]:
    """Return the recomputed run folders within a folder, by their names."""
    found = {}
    for path in sorted(root.glob("*/statistics.json")):
        run = read_run(path.parent)
        factorial = path.with_name("factorial.json")
        found[path.parent.name] = Study(run, facts(run), read_factorial(factorial) if factorial.exists() else None)
    return found


def facts(run: Run) -> Facts:
    """Return how a run came about, according to its rows and its record."""
    base = run.scores.select("prompt_id", "seed").unique().height
    sessions = run.record.get("sessions", [])
    own = [session for session in sessions if "interventions" not in session and "drawn" in session]
    adapters = run.cells.select("adapter", "method").unique()
    controls = adapters.filter(pl.col("method") == CONTROL).height
    variants = pl.read_ipc(run.folder / "interventions.arrow") if run.interventions else None
    workers = [worker for session in sessions for worker in session["workers"]]
    return Facts(
        prompts=run.cells["prompt_id"].n_unique(),
        seeds=run.scores["seed"].n_unique(),
        adapters=adapters.height - controls,
        controls=controls,
        images=base + run.scores.height,
        proved=int((~run.scores["drawn"]).sum()),
        recorded=sum(session["drawn"] for session in own),
        seconds=sum(session.get("seconds", session.get("drawing_s", 0.0)) for session in sessions),
        drawing_s=sum(session["drawing_s"] for session in own),
        training_s=sum(session.get("training_s", 0.0) for session in own),
        variants=0 if variants is None else variants["adapter"].n_unique(),
        varied=0 if variants is None else int(variants["n_seeds"].sum()),
        devices=tuple(sorted(run.scores["device"].unique())),
        workers=max((len(session["workers"]) for session in sessions), default=0),
        threads=tuple(sorted({worker["threads"] for worker in workers})),
    )
