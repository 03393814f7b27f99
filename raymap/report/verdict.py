"""The report's first screen: the run's one verdict, where to look first, and what the verdict rests on.

The verdict itself is made in `raymap.analysis.decide.verdict` and only shown here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from raymap.analysis.decide.answers import AdapterVerdict, Answer, Held
from raymap.analysis.measures import E_PER, E_SEM
from raymap.display.text import number
from raymap.results import Run

LOOK_IN_ALL, LOOK = 5, 3
"""How many cells to look at first are named: for the whole run, and for one adapter."""
Level = Literal["ok", "note", "warn", "bad"]
LEVELS: dict[Answer, Level] = {"shifted": "bad", "unchanged": "ok", "cannot tell": "warn"}


@dataclass(frozen=True)
class Sentence:
    """A statement, and what it means for trusting the run or releasing an adapter: `ok`, `note`, `warn` or `bad`."""

    text: str
    level: Level = "note"


@dataclass(frozen=True)
class Look:
    """A cell to look at first, its answer, and in which ways it shifted."""

    prompt_id: str
    prompt: str
    adapter: str
    e_sem: float
    e_sem_signed: float
    e_per: float
    answer: Answer
    ways: tuple[str, ...]


@dataclass(frozen=True)
class AdapterShown:
    """What is concluded about one adapter, its limits, and its prompts to look at first."""

    adapter: str
    method: str
    subject_category: str
    sentence: Sentence
    limits: tuple[Held, ...]
    look: tuple[Look, ...]


@dataclass(frozen=True)
class Shown:
    """The verdict as the page shows it. If there are `alarms`, nothing else in the run can be trusted."""

    alarms: tuple[str, ...]
    headline: str
    level: Level
    margin: str
    look: tuple[Look, ...]
    adapters: tuple[AdapterShown, ...]
    certainty: tuple[Sentence, ...]


def shown_verdict(run: Run) -> Shown:
    """Return a run's verdict for its page."""
    found, others = run.verdict, run.others
    level: Level = {None: "note", "pass": "ok", "fail": "bad", "undecided": "warn"}[found["decision"]]  # type: ignore[assignment]
    return Shown(
        tuple(f"{reason[0].upper()}{reason[1:]}." for reason in found["refused"]),
        found["headline"],
        level,
        found["margin"],
        look_first(others, LOOK_IN_ALL, one_per_prompt=True),
        tuple(_adapter(row, others) for row in found["adapters"]),
        tuple(_certainty(run)),
    )


def _adapter(row: AdapterVerdict, others: pl.DataFrame) -> AdapterShown:
    look = look_first(others.filter(pl.col("adapter") == row["adapter"]), LOOK)
    sentence = Sentence(row["sentence"], LEVELS[row["answer"]])
    known = (row["adapter"], row["method"], row["subject_category"])
    return AdapterShown(*known, sentence, tuple(row["limits"]), look)


def look_first(cells: pl.DataFrame, count: int, one_per_prompt: bool = False) -> tuple[Look, ...]:
    """Return the cells to look at first: those that shifted, falls before the others, then the largest E_sem.

    Args:
        cells: as `Run.cells`.
        one_per_prompt: whether a prompt is named only once, by the first of its cells.
    """
    moved = cells.filter(pl.col("e_sem") > 0).with_columns(sure=pl.col("answer") == "shifted")
    order, descending = ("sure", "fell", "e_sem", "prompt_id", "adapter"), [True, True, True, False, False]
    ordered = moved.sort(*order, descending=descending)
    if one_per_prompt:
        ordered = ordered.unique("prompt_id", keep="first", maintain_order=True)
    return tuple(
        Look(
            row["prompt_id"], row["prompt"], row["adapter"], row["e_sem"], row["e_sem_signed"], row["e_per"],
            row["answer"], tuple(way for way in ("fell", "image", "rose") if row[way]),
        )
        for row in ordered.head(count).iter_rows(named=True)
    )  # fmt: skip


def _certainty(run: Run) -> list[Sentence]:
    """Return what the verdict rests on."""
    statistics, found = run.statistics, run.verdict
    said = [Sentence(found["margin"])]
    control = statistics["identity_control"]
    if control["present"] and control["exact"]:
        said.append(Sentence(f"The identity control is exactly zero in all {control['cells']} cells.", "ok"))
    said += [Sentence(note, "warn") for note in found["notes"]]
    floor = statistics["noise_floor"]
    if floor["tau_sem"] and floor["tau_per"]:
        sem, per = number(floor["tau_sem"]["value"], E_SEM.digits), number(floor["tau_per"]["value"], E_PER.digits)
        text = (
            f"The paper's noise floor, from {floor['pairs']} pairs of base seeds: τ_sem = {sem}, τ_per = {per}. It is "
            "one number for all prompts and for single pairs, so the verdict does not use it."
        )
        said.append(Sentence(text))
    if incomplete := statistics["incomplete"]:
        cells = sum(entry["cells"] for entry in incomplete)
        failed = (run.folder / "failures.jsonl").exists()
        why = ", because batches failed (failures.jsonl says why; the same command tries them again)" if failed else ""
        lacking = f"{cells} of {run.cells.height} cells lack some{why}."
        said.append(Sentence(f"Not every cell has all {incomplete[0]['seeds']} seeds: {lacking}", "warn"))
    rate = f"{found['false_discovery_rate']:.0%}"
    text = (
        "Tests: moderated t of each prompt against its own margin, over the prompt's seeds. Of an adapter's prompts "
        f"that are called shifted, and of those that are called unchanged, {rate} may be wrong; numbers after “at "
        "least” hold with 95 % confidence."
    )
    return [*said, Sentence(text)]
