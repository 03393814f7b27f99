"""The one verdict on a run: made here from tests alone, and shown by terminal, report, files, exit code and Python.

Each prompt has one of three answers (`raymap.analysis.changes`): *shifted* if a change beyond its margin is found at a
false-discovery rate of 5 %, *unchanged* if a change within it is shown at the same rate, else *cannot tell*. An adapter
*shifted* if one of its non-target prompts did, or if the mean of its signed changes, in units of the prompts' margins,
is beyond one margin (95 % t interval over prompts). It is *unchanged* if all of its non-target prompts are.

A limit on a number of prompts is exceeded if more prompts shifted with 95 % confidence (`at_least`), and kept if it is
shown at 5 % that all prompts but so many are unchanged (`all_but`). A limit on a mean is exceeded, or kept, if the 95 %
interval lies above, or does not reach above it. Otherwise the seeds cannot tell, and the decision is *undecided*.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from raymap.analysis.changes import LADDER, change_tests
from raymap.analysis.decide import words
from raymap.analysis.decide.answers import (
    VERSION,
    AdapterVerdict,
    Answer,
    Answers,
    Decision,
    Held,
    MoreSeeds,
    ShiftedPrompt,
    Verdict,
    Way,
)
from raymap.analysis.decide.limits import AuditLimits
from raymap.analysis.estimates import Interval, OverPrompts
from raymap.analysis.map import measured
from raymap.analysis.measures import E_PER, E_SEM
from raymap.analysis.numerics.debiased import signed_root
from raymap.analysis.numerics.discoveries import all_but, at_least
from raymap.analysis.read import KEY, read_map, read_noise, read_statistics, stream_scores
from raymap.analysis.shifts import FDR
from raymap.analysis.statistics import AdapterSummary, Statistics
from raymap.analysis.summary import over_prompts
from raymap.store.files import as_json, read_file, read_if_there, write_atomically

EXACT = (("sem", "matchings"), ("per", "rank sum"), ("signed", "sign flips"))
COUNTED = {
    "prompts": ("p_shifted", "p_unchanged"),
    "falls": ("p_fell", "p_not_fallen"),
    "targets": ("p_shifted", "p_unchanged"),
}
"""For each limit on a number of prompts, the tests that they did, and that they did not."""
LOOK = 10
"""How many prompts are named for a limit on a mean."""


def write_verdict(folder: Path, limits: AuditLimits | None = None) -> Verdict:
    """Write a reduced run folder's verdict.json and return it.

    Args:
        limits: None keeps the limits that the folder's verdict.json names, if it has one.

    Raises:
        InputError: the folder lacks its scores, its map or its statistics.
    """
    held = limits_of(folder) if limits is None else limits
    found = decide(*_read(folder), held)
    write_atomically(folder / "verdict.json", as_json(found))
    return found


def read_verdict(folder: Path) -> Verdict:
    """Return a run folder's verdict; made anew if the folder has none, as those of earlier versions have."""
    held: Verdict | None = json.loads(read_if_there(folder / "verdict.json") or b"null")
    if held and held["schema"] == VERSION:
        return held
    return decide(*_read(folder), limits_of(folder))


def limits_of(folder: Path) -> AuditLimits:
    """Return the limits that a run folder's verdict.json names; none if it has none."""
    held = json.loads(read_if_there(folder / "verdict.json") or b"{}")
    known = {name: value for name, value in held.get("limits", {}).items() if name in AuditLimits.__annotations__}
    return AuditLimits(**known)


def _read(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, Statistics]:
    shifts = pl.read_ipc(read_file(folder / "shifts.arrow"))
    stored = read_if_there(folder / "changes.arrow")
    changes = change_tests(stream_scores(folder), read_noise(folder)) if stored is None else pl.read_ipc(stored)
    return read_map(folder), changes, shifts, read_statistics(folder)


def answered(cells: pl.DataFrame, changes: pl.DataFrame, shifts: pl.DataFrame, refused: bool = False) -> pl.DataFrame:
    """Return the map without controls, each cell with its tests, its `answer`, its `ways` and `p_fell`.

    Args:
        cells: the map (schema MAP).
        changes: schema CHANGES.
        shifts: schema SHIFTS, for the exact tests.
        refused: whether nothing can be told of any cell.
    """
    exact = shifts.select(*KEY, *(pl.col(f"q_{name}").alias(f"exact_{name}") for name, _ in EXACT))
    joined = measured(cells).join(changes.drop("target", "signed", "lpips"), on=KEY, how="left", maintain_order="left")
    joined = joined.join(exact, on=KEY, how="left", maintain_order="left")
    shifted = (pl.col("q_shifted") <= FDR).fill_null(False) & (not refused)
    unchanged = (pl.col("q_unchanged") <= FDR).fill_null(False) & (not refused) & ~shifted
    joined = joined.with_columns(
        answer=pl.when(shifted).then(pl.lit("shifted")).when(unchanged).then(pl.lit("unchanged"))
        .otherwise(pl.lit("cannot tell")),
        p_fell=pl.when(pl.col("e_sem_signed") < 0).then((2 * pl.col("p_score")).clip(upper_bound=1.0))
        .when(pl.col("p_score").is_not_null()).then(1.0),
    )  # fmt: skip
    # Benjamini and Hochberg's threshold: a measure counts whose own p would be listed, too.
    listed = pl.col("answer") == "shifted"
    level = (FDR * listed.sum() / pl.col("q_shifted").count()).over("adapter", "target")
    by_score = listed & (2 * pl.col("p_score") <= level).fill_null(False)
    return joined.with_columns(
        fell=by_score & (pl.col("e_sem_signed") < 0),
        rose=by_score & (pl.col("e_sem_signed") > 0),
        image=listed & (2 * pl.col("p_image") <= level).fill_null(False),
    )


def decide(
    cells: pl.DataFrame, changes: pl.DataFrame, shifts: pl.DataFrame, statistics: Statistics, limits: AuditLimits
) -> Verdict:
    """Return the verdict on a run (see the module).

    Args:
        cells, changes, shifts: as `answered` takes them.
        limits: what each adapter may reach.
    """
    seeds = int(changes["seeds"].max() or 0) if changes.height else 0  # type: ignore[arg-type]
    refused, notes = _refusals(statistics, seeds), _notes(statistics, seeds)
    known = answered(cells, changes, shifts, bool(refused))
    adapters = [
        _adapter(known.filter(pl.col("adapter") == row["adapter"]), row, limits, bool(refused))
        for row in statistics["adapters"]
    ]
    decision: Decision | None = None
    if limits.given:
        reached = {held["decision"] for adapter in adapters for held in adapter["limits"]}
        lost = any(statistics.get("missing", {}).values())
        open_ = bool(refused) or not adapters or "undecided" in reached or lost
        decision = "fail" if "fail" in reached and not refused else "undecided" if open_ else "pass"
    return {
        "schema": VERSION,
        "digest": statistics["digest"],
        "headline": " ".join([words.headline(adapters, decision, refused), *_lost(statistics)]),
        "decision": decision,
        "refused": refused,
        "notes": notes,
        "margin": words.MARGIN,
        "false_discovery_rate": FDR,
        "limits": limits.given,
        "adapters": adapters,
    }


def _refusals(statistics: Statistics, seeds: int) -> list[str]:
    control = statistics["identity_control"]
    reasons = []
    if control["present"] and not control["exact"]:
        reasons.append(words.not_zero(control["max_e_sem"] or 0, control["max_e_per"] or 0))
    if not statistics["noise_floor"]["pairs"] and seeds != 1:
        reasons.append(words.NO_FLOOR)
    return [*reasons, words.ONE_SEED] if seeds == 1 else reasons


def _notes(statistics: Statistics, seeds: int) -> list[str]:
    notes = [] if statistics["identity_control"]["present"] else [words.NO_CONTROL]
    return [*notes, words.TWO_SEEDS] if seeds == 2 else notes


def _lost(statistics: Statistics) -> list[str]:
    """Return a sentence on the adapters and prompts without any measurement; none if there are none."""
    lost: dict[str, list[str]] = cast(dict[str, list[str]], statistics.get("missing", {}))
    parts = [
        f"{words.plural(len(names), what)} ({', '.join(names[:3])}{', …' * (len(names) > 3)})"
        for what, names in (("adapter", lost.get("adapters", [])), ("prompt", lost.get("prompts", [])))
        if names
    ]
    return [f"Nothing could be measured for {' and '.join(parts)}: every batch failed."] if parts else []


def _adapter(cells: pl.DataFrame, row: AdapterSummary, limits: AuditLimits, refused: bool) -> AdapterVerdict:
    others, targets = (cells.filter(pl.col("target") == target) for target in (False, True))
    by_proof = not cells["drawn"].fill_null(True).any()
    units = over_prompts((others["e_sem_signed"] / others["margin"]).filter(others["margin"] > 0))
    beyond = not refused and _beyond(units)
    counts = _answers(others, refused)
    if beyond:
        counts["shifted_at_least"] = max(counts["shifted_at_least"], 1)
    answer: Answer = "cannot tell"
    if counts["shifted"] or beyond:
        answer = "shifted"
    elif counts["prompts"] and counts["unchanged"] == counts["prompts"]:
        answer = "unchanged"
    square = over_prompts(others["systematic"])
    held: AdapterVerdict = {
        "adapter": row["adapter"],
        "method": row["method"],
        "subject_category": row["subject_category"],
        "answer": answer,
        "sentence": "",
        "by_proof": by_proof and answer == "unchanged",
        "seeds": int(cells["n_seeds"].to_numpy().max(initial=0)),
        "e_sem": row["e_sem"],
        "e_sem_signed": row["e_sem_signed"],
        "e_per": row["e_per"],
        "in_margins": units,
        "systematic": cast(
            Interval, {"value": _root(square["value"]), "low": _root(square["low"]), "high": _root(square["high"])}
        ),
        "energy": over_prompts(others["energy"]),
        "others": counts,
        "targets": _answers(targets, refused),
        "more_seeds": _more_seeds(others),
        "limits": [],
    }
    held["sentence"] = words.adapter_sentence(held, beyond, refused)
    held["limits"] = [
        _held(name, at_most, targets if name == "targets" else others, held, refused)
        for name, at_most in limits.given.items()
    ]
    return held


def _root(square: float | None) -> float | None:
    return None if square is None else signed_root(square)


def _beyond(units: OverPrompts) -> bool:
    return units["low"] is not None and units["high"] is not None and (units["low"] > 1 or units["high"] < -1)


def _answers(cells: pl.DataFrame, refused: bool) -> Answers:
    shifted = cells.filter(pl.col("answer") == "shifted")
    shifted = shifted.sort("fell", "image", "p_shifted", "prompt_id", descending=[True, True, False, False])

    def bound(column: str) -> int:
        return 0 if refused else at_least(cells[column].drop_nulls().to_numpy(), FDR)

    return {
        "prompts": cells.height,
        "shifted": shifted.height,
        "fell": int(shifted["fell"].sum()),
        "rose": int(shifted["rose"].sum()),
        "image": int(shifted["image"].sum()),
        "unchanged": int((cells["answer"] == "unchanged").sum()),
        "cannot_tell": int((cells["answer"] == "cannot tell").sum()),
        "shifted_at_least": bound("p_shifted"),
        "changed_at_least": bound("p_changed"),
        "shifted_prompts": [_shifted(row) for row in shifted.iter_rows(named=True)],
        "unchanged_prompts": cells.filter(pl.col("answer") == "unchanged")["prompt_id"].to_list(),
        "open_prompts": cells.filter(pl.col("answer") == "cannot tell")["prompt_id"].to_list(),
    }


def _shifted(row: dict[str, Any]) -> ShiftedPrompt:
    exact = [what for name, what in EXACT if row[f"exact_{name}"] is not None and row[f"exact_{name}"] <= FDR]
    ways: tuple[Way, ...] = ("fell", "image", "rose")
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "ways": [way for way in ways if row[way]],
        "signed": row["e_sem_signed"],
        "margin": row["margin"],
        "e_per": row["e_per"],
        "image_margin": row["image_margin"],
        "q": row["q_shifted"],
        "seeds": row["n_seeds"],
        "tests": ["moderated t", *exact],
    }


def _more_seeds(cells: pl.DataFrame) -> MoreSeeds:
    unsettled = cells.filter(pl.col("answer") == "cannot tell")["seeds_to_settle"]
    wanted = unsettled.drop_nulls().sort()
    middle = (len(unsettled) + 1) // 2
    half = int(wanted[middle - 1]) if len(unsettled) and len(wanted) >= middle else None
    return {"open": len(unsettled), "half": half, "beyond": unsettled.null_count(), "most": LADDER[-1]}


def _held(name: str, at_most: float, cells: pl.DataFrame, adapter: AdapterVerdict, refused: bool) -> Held:
    """Hold one adapter against one limit."""
    value: float | None
    low: float | None
    high: float | None
    if name in COUNTED:
        value, low, high, look = _count(name, cells, adapter)
        of = cells.height
    else:
        mean = (
            adapter["e_sem_signed"] if name == "fall" else adapter["e_sem"] if name == E_SEM.name else adapter["e_per"]
        )
        value, low, high, of = mean["value"], mean["low"], mean["high"], mean["n"]
        if name == "fall" and value is not None:
            value = 0.0 - value
            low, high = (None, None) if low is None or high is None else (0.0 - high, 0.0 - low)
        worst = "e_sem_signed" if name == "fall" else E_PER.name if name == E_PER.name else E_SEM.name
        ordered = cells.drop_nulls(worst).sort(worst, "prompt_id", descending=[name != "fall", False])
        look = ordered.head(LOOK)["prompt_id"].to_list()
    decision: Decision = "undecided"
    if not refused and value is not None and low is not None and high is not None:
        decision = "fail" if low > at_most else "pass" if high <= at_most else "undecided"
    elif name == "targets" and not of:
        value, low, high, decision = 0, 0, 0, "undecided" if refused else "pass"
    held: Held = {"limit": name, "at_most": at_most, "value": value, "low": low, "high": high, "of": of,
                  "decision": decision, "message": "", "look": look}  # fmt: skip
    held["message"] = words.limit_message(held)
    return held


def _count(
    name: str, cells: pl.DataFrame, adapter: AdapterVerdict
) -> tuple[float | None, float | None, float | None, list[str]]:
    """Return how many prompts did what a limit counts, the bounds of that number, and which ones did."""
    did, did_not = COUNTED[name]
    tested = cells[did].drop_nulls().to_numpy()
    if not len(tested):
        return None, None, None, []
    answers = adapter["targets"] if name == "targets" else adapter["others"]
    low = at_least(tested, FDR) if name == "falls" else answers["shifted_at_least"]
    p = cells[did_not].cast(pl.Float64).fill_null(np.nan).to_numpy()
    high = next((m for m in range(cells.height) if all_but(p, m) <= FDR), cells.height)
    look = [row["prompt_id"] for row in answers["shifted_prompts"] if name != "falls" or "fell" in row["ways"]]
    return len(look), low, max(high, low), look
