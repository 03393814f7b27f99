"""The verdict in plain sentences: what shifted, how sure that is, and where to look first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import polars as pl

from raymap.analysis.measures import E_PER, E_SEM
from raymap.analysis.numerics.exchange import least_matching_p, least_sign_flip_p
from raymap.analysis.shifts import FDR
from raymap.analysis.statistics import AdapterSummary, ShiftCounts, Statistics
from raymap.display.text import number
from raymap.results import Run

LOOK_IN_ALL, LOOK = 5, 3
"""How many cells to look at first are named: for the whole run, and for one adapter."""
SUFFICIENT = 0.01
"""There are enough seeds if a finding needs no more than this share of prompts at the least possible p-value."""
Level = Literal["ok", "note", "warn", "bad"]


@dataclass(frozen=True)
class Sentence:
    """A statement, and what it means for trusting the run or releasing an adapter: `ok`, `note`, `warn` or `bad`."""

    text: str
    level: Level = "note"


@dataclass(frozen=True)
class Look:
    """A cell to look at first; `sure` says whether its meaning shifted beyond re-seeding, at the rate FDR."""

    prompt_id: str
    prompt: str
    adapter: str
    e_sem: float
    e_sem_signed: float
    e_per: float
    sure: bool


@dataclass(frozen=True)
class AdapterVerdict:
    """What is concluded about one adapter, and its prompts to look at first."""

    adapter: str
    method: str
    subject_category: str
    sentence: Sentence
    look: tuple[Look, ...]


@dataclass(frozen=True)
class Verdict:
    """What is concluded about a run. If there is an `alarm`, nothing else in the run can be trusted."""

    alarm: Sentence | None
    headline: str
    look: tuple[Look, ...]
    adapters: tuple[AdapterVerdict, ...]
    certainty: tuple[Sentence, ...]


def verdict(run: Run) -> Verdict:
    """Conclude from a run's tests and controls; counts are of non-target prompts, at the false-discovery rate FDR."""
    statistics, others = run.statistics, run.others
    proved = set(run.scores.group_by("adapter").agg(pl.col("drawn").any()).filter(~pl.col("drawn"))["adapter"])
    counts = {row["adapter"]: row for row in statistics["shifts"]}
    adapters = tuple(
        _adapter(row, counts.get(row["adapter"]), row["adapter"] in proved, others) for row in statistics["adapters"]
    )
    headline = " ".join(filter(None, (_headline(run, proved), _missing(statistics))))
    look = look_first(others, LOOK_IN_ALL, one_per_prompt=True)
    return Verdict(_alarm(statistics), headline, look, adapters, tuple(_certainty(run)))


def _alarm(statistics: Statistics) -> Sentence | None:
    control = statistics["identity_control"]
    if not control["present"] or control["exact"]:
        return None
    return Sentence(
        f"The identity control is not zero (E_sem up to {control['max_e_sem']:.3g}, E_per up to "
        f"{control['max_e_per']:.3g}): base and adapted images were not computed alike, and nothing below can be "
        "trusted.",
        "bad",
    )


def _headline(run: Run, proved: Collection[str]) -> str:
    adapters, counts = run.statistics["adapters"], run.statistics["shifts"]
    total = len(adapters)
    if not total:
        return "No adapter was measured."
    sem = sum(bool(row["shifted_sem"]) for row in counts)
    per = sum(bool(row["shifted_per"]) for row in counts)
    signed = sum(bool(row["shifted_signed"]) for row in counts)
    if sem or per or signed:
        meaning = f"{_adapters(sem, total)} {_verb(sem, 'shift')} the meaning of non-target prompts"
        image = f"{_counted(per, total)} {_verb(per, 'shift')} their images beyond it"
        score = (
            f"{_counted(signed, total)} {_verb(signed, 'change')} the mean CLIP score of {'some' if signed else 'any'}"
        )
        said = _sentence(f"{meaning} beyond re-seeding, {image}, and {score}.")
    else:
        said = _nothing_established(adapters, run.scores["seed"].n_unique())
    same = sum(a["adapter"] in proved for a in adapters)
    if same:
        said += f" {_sentence(_adapters(same, total))} {_verb(same, 'leave')} every image as it is, by proof."
    return said


def _nothing_established(adapters: list[AdapterSummary], seeds: int) -> str:
    said = "No shift is established on any single non-target prompt"
    means = {a["adapter"]: value for a in adapters if (value := a["e_sem"]["value"])}
    if means and least_sign_flip_p(seeds) > FDR:
        most = max(means, key=lambda name: means[name])
        said += (
            f" ({_seeds(seeds)} can establish none, neither of the meaning nor of the mean "
            f"score); the largest mean E_sem is {number(means[most], E_SEM.digits)}, under {most}"
        )
    return f"{said}."


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _adapters(n: int, total: int) -> str:
    if n == 0:
        return "no adapter"
    return "the only adapter" if total == 1 else f"{_counted(n, total)} adapters"


def _counted(n: int, total: int) -> str:
    """Return the subject of a clause that follows one whose subject `_adapters` gave."""
    if n == 0:
        return "none"
    return "it" if total == 1 else f"all {n}" if n == total else f"{n} of {total}"


def _verb(n: int, verb: str) -> str:
    return f"{verb}s" if n <= 1 else verb


def _adapter(row: AdapterSummary, counts: ShiftCounts | None, proved: bool, others: pl.DataFrame) -> AdapterVerdict:
    known = (row["adapter"], row["method"], row["subject_category"])
    e_sem, signed, e_per = row["e_sem"]["value"], row["e_sem_signed"]["value"], row["e_per"]["value"]
    if e_sem is None or signed is None:
        return AdapterVerdict(*known, Sentence("No non-target prompt was measured.", "warn"), ())
    if proved:
        text = (
            "Every image is the base's own, by proof: no prompt contains the learned token, and the denoiser is "
            "untouched."
        )
        return AdapterVerdict(*known, Sentence(text, "ok"), ())
    look = look_first(others.filter(pl.col("adapter") == row["adapter"]), LOOK)
    if not counts:
        return AdapterVerdict(*known, Sentence("No cell could be tested.", "warn"), look)
    tested = (
        ("meaning", counts["shifted_sem"], counts["tested_sem"]),
        ("image", counts["shifted_per"], counts["tested_per"]),
    )
    beyond = [f"{what} on {shifted} of {of} prompts" for what, shifted, of in tested if of]
    said = [f"Shifts beyond re-seeding: {', '.join(beyond)}."] if beyond else []
    if counts["tested_signed"]:
        # Seeds are paired: this test finds changes that are far smaller than what re-seeding does.
        changed = f"on {counts['shifted_signed']} of {counts['tested_signed']} prompts"
        said.append(f"The mean CLIP score changed, however little, {changed}.")
    said = said or ["No cell could be tested."]
    said.append(
        f"On average the CLIP score moves by {number(e_sem, E_SEM.digits)} and ends "
        f"{number(abs(signed), E_SEM.digits)} {'lower' if signed < 0 else 'higher'}; LPIPS is "
        f"{number(e_per, E_PER.digits)}."
    )
    any_shift = counts["shifted_sem"] or counts["shifted_per"] or counts["shifted_signed"]
    level: Level = "bad" if counts["shifted_sem"] else "warn" if any_shift else "note"
    return AdapterVerdict(*known, Sentence(" ".join(said), level), look)


def look_first(cells: pl.DataFrame, count: int, one_per_prompt: bool = False) -> tuple[Look, ...]:
    """Return the cells to look at first: those whose meaning shifted for sure, then those with the largest E_sem.

    Args:
        cells: as `Run.cells`.
        one_per_prompt: whether a prompt is named only once, by the first of its cells.
    """
    moved = cells.filter(pl.col("e_sem") > 0).with_columns(sure=(pl.col("q_sem") <= FDR).fill_null(False))
    ordered = moved.sort("sure", "e_sem", "prompt_id", "adapter", descending=[True, True, False, False])
    if one_per_prompt:
        ordered = ordered.unique("prompt_id", keep="first", maintain_order=True)
    columns = ("prompt_id", "prompt", "adapter", "e_sem", "e_sem_signed", "e_per", "sure")
    return tuple(Look(*row) for row in ordered.head(count).select(columns).rows())


def _certainty(run: Run) -> list[Sentence]:
    statistics, said = run.statistics, []
    if missing := _missing(statistics):
        said.append(Sentence(missing, "bad"))
    control = statistics["identity_control"]
    if not control["present"]:
        text = (
            "No identity control was drawn, so it is not shown that an adapter which changes nothing is measured as 0."
        )
        said.append(Sentence(text, "warn"))
    elif control["exact"]:
        said.append(Sentence(f"The identity control is exactly zero in all {control['cells']} cells.", "ok"))
    said += _floor(run)
    if few := _few_seeds(run.scores["seed"].n_unique() if statistics["shifts"] else 0):
        said.append(Sentence(few, "warn"))
    if incomplete := statistics["incomplete"]:
        cells = sum(entry["cells"] for entry in incomplete)
        failed = (run.folder / "failures.jsonl").exists()
        why = ", because batches failed (failures.jsonl says why; the same command tries them again)" if failed else ""
        lacking = f"{cells} of {run.cells.height} cells lack some{why}."
        said.append(Sentence(f"Not every cell has all {incomplete[0]['seeds']} seeds: {lacking}", "warn"))
    said.append(
        Sentence(f"Counts are at a false-discovery rate of {FDR:.0%} (Benjamini-Hochberg, adapter by adapter).")
    )
    return said


def _floor(run: Run) -> list[Sentence]:
    """Return what the noise floor is, and how many cells lie above it."""
    floor, others = run.statistics["noise_floor"], run.others
    if floor["tau_sem"] is None or floor["tau_per"] is None:
        return [Sentence("There is no noise floor, because no pair of base seeds was measured.", "warn")]
    sem, per = (int(others[f"above_{name}"].sum()) for name in ("tau_sem", "tau_per"))
    tau_sem, tau_per = number(floor["tau_sem"]["value"], E_SEM.digits), number(floor["tau_per"]["value"], E_PER.digits)
    single = Sentence(
        f"Noise floor from {floor['pairs']} pairs of base seeds: τ_sem = {tau_sem}, τ_per = {tau_per}. Of "
        f"{others.height} non-target cells, {sem} lie above τ_sem and {per} above τ_per. A cell is a mean over seeds, "
        "but a threshold is a percentile of single pairs, so the tests decide and the thresholds are only a guide."
    )
    return [single, _matched(run.statistics)]


def _matched(statistics: Statistics) -> Sentence:
    """Return how many cells lie above the matched floor, or why there is none."""
    sem = [n for a in statistics["adapters"] if (n := a["above_matched_sem"]) is not None]
    per = [n for a in statistics["adapters"] if (n := a["above_matched_per"]) is not None]
    if not sem or not per:
        reason = statistics["noise_floor"]["matched"]["e_sem"]["reason"]
        return Sentence(f"No floor is matched to the cells: {reason or 'no cell has one'}.")
    return Sentence(
        f"Matched floor: {sum(sem)} cells in E_sem and {sum(per)} in E_per lie above the limit for a mean over as many "
        "seed pairs of the same prompt. Re-seeding alone would put about 1 in 20 of all cells there, or fewer."
    )


def _missing(statistics: Statistics) -> str | None:
    """Return which adapters and prompts of the run have no measurement; None if there are none."""
    lost = statistics.get("missing")
    if not lost:
        return None
    parts = [
        f"{len(names)} {what if len(names) == 1 else f'{what}s'} ({', '.join(names[:3])}{', …' * (len(names) > 3)})"
        for what, names in (("adapter", lost["adapters"]), ("prompt", lost["prompts"]))
        if names
    ]
    return f"Nothing could be measured for {' and '.join(parts)}: every batch failed." if parts else None


def _few_seeds(seeds: int) -> str | None:
    """Return what too few seeds mean for the tests of single cells; None if they suffice or nothing was tested."""
    if not seeds:
        return None
    sem, signed = least_matching_p(seeds), least_sign_flip_p(seeds)
    if sem / FDR <= SUFFICIENT:
        return None
    known = (
        f"With {_seeds(seeds)}, a shift that is equal in all of them has p = {sem:.2g} (meaning) and {signed:.2g} "
        "(mean score)"
    )
    if signed > FDR:
        return f"{known} at best, so neither can be established for a single prompt. More seeds would tell more."
    meaning, score = (
        "never" if p > FDR else f"only if {p / FDR:.0%} of its prompts reach that p" for p in (sem, signed)
    )
    return (
        f"{known} at best. After the correction for false discoveries, an adapter's shifts of meaning can be "
        f"established {meaning}, and its changes of the mean score {score}. More seeds would tell more."
    )
