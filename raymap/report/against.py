"""A run's statistics beside the paper's published figures: what agrees, what differs, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypedDict

from raymap.analysis.measures import E
from raymap.analysis.paper.published import METHODS, Paper, load_paper
from raymap.analysis.statistics import Statistics
from raymap.display.text import estimate, number
from raymap.study.methods.registry import known_method

PROVED = frozenset(name for name in METHODS if known_method(name).proved(known_method(name).recipe(), None))
"""The paper's methods whose adapters, trained by the default recipe, are exact identities by proof."""
PROVED_TI = (
    "Textual Inversion leaves every row but its own token's, which no prompt holds: an exact identity, so that its "
    "place at the bottom says nothing about the paper's figures for it"
)
SCALES = "another base, other judges, prompts and sizes have other scales"
MIN_MAX = "E is scaled by the map's own range, so that only orders compare"
POOLED = "the paper's p-value takes crossed cells for independent ones; compare direction and verdict, not size"
NOT_ESTABLISHED = "same direction, not established"
NOT_TOLD = "not told apart"
"""The verdict on a direction or an order where the interval of the difference holds 0."""
LEVEL = 0.05
_paper = cache(load_paper)


class Beside(TypedDict):
    """One figure of the paper, printed at `place`, beside this run's; `ours` is None if the run has none.

    `verdict` is `agrees`, `differs`, `not comparable`, NOT_TOLD or NOT_ESTABLISHED; `why` says what it rests on.
    """

    what: str
    place: str
    paper: str
    ours: str | None
    verdict: str
    why: str


def against_paper(statistics: Statistics, study: dict[str, Any]) -> list[Beside]:
    """Return every figure of the paper that the run has a counterpart of, beside that counterpart.

    Where the interval of a difference holds 0, its direction is NOT_TOLD. A hypothesis that the paper confirms is
    NOT_ESTABLISHED if its direction is found and Holm's p is at least LEVEL.

    Args:
        statistics: what statistics.json holds.
        study: the keys of the resolved study; empty if they are unknown.
    """
    paper = _paper()
    return [
        *_floor(paper, statistics),
        *_table_1(paper, statistics, study),
        *_method_orders(paper, statistics),
        *_subject_order(paper, statistics),
        *_hypotheses(paper, statistics),
    ]


def _row(what: str, place: str, paper: str, ours: str | None, agrees: bool | None, why: str = "") -> Beside:
    verdict = "not comparable" if agrees is None else "agrees" if agrees else "differs"
    return {"what": what, "place": place, "paper": paper, "ours": ours, "verdict": verdict, "why": why}


def _floor(paper: Paper, statistics: Statistics) -> list[Beside]:
    held, floor = paper.noise_floor, statistics["noise_floor"]
    rows = [
        _row("tau_sem", held.place, held.tau_sem.printed, _shown(floor["tau_sem"]), None, SCALES),
        _row("tau_per", held.place, held.tau_per.printed, _shown(floor["tau_per"]), None, SCALES),
    ]
    what = "mean E_sem of all adapters below tau_sem"
    paper_says = f"{held.mean_e_sem.printed} < {held.tau_sem.printed}"
    means = [value for a in statistics["adapters"] if (value := a["e_sem"]["value"]) is not None]
    if not means or not floor["tau_sem"]:
        return [*rows, _row(what, held.place, paper_says, None, None, "no adapter, or no noise floor")]
    mean, tau = sum(means) / len(means), floor["tau_sem"]["value"]
    ours = f"{number(mean)} {'<' if mean < tau else '≥'} {number(tau)}"
    why = "both hold a mean over seeds against a percentile of single pairs"
    return [*rows, _row(what, held.place, paper_says, ours, mean < tau, why)]


def _table_1(paper: Paper, statistics: Statistics, study: dict[str, Any]) -> list[Beside]:
    judged = study.get("clip") not in (None, "embedded") and study.get("protocol", "plain") == "plain"
    same = judged and "stable-diffusion-v1-5" in str(study.get("base", ""))
    rows = []
    for cell in statistics["table_1"]:
        method, category = cell["method"], cell["subject_category"]
        known = [c for c in paper.table1.cells if (c.method, c.subject_category) == (method, category)]
        for figure in known:
            why = PROVED_TI if method in PROVED else "" if same else SCALES
            low, high = cell["e_sem"]["low"], cell["e_sem"]["high"]
            inside = None
            if same and method not in PROVED and low is not None and high is not None:
                inside = low <= figure.e_sem.value <= high
            what = f"E_sem of {method}, {category}"
            rows.append(_row(what, paper.table1.place, figure.e_sem.printed, _shown(cell["e_sem"]), inside, why))
            what = f"E of {method}, {category}"
            rows.append(_row(what, paper.table1.place, figure.e.printed, _shown(cell["e"]), None, MIN_MAX))
    return rows


def _method_orders(paper: Paper, statistics: Statistics) -> list[Beside]:
    order = next(o for o in paper.orders if o.id == "methods")
    rows = []
    for entry in statistics["method_order"]:
        if entry["measure"] != order.quantity:
            continue
        identity = not PROVED.isdisjoint(entry["claim"].split(" < "))
        value = entry["difference"]
        ours = None if value["value"] is None else f"difference {_shown(value)}"
        rows.append(
            _row(
                f"E, {entry['subject_category']}: {entry['claim']}", order.place, "holds", ours,
                None if identity or entry["direction_holds"] is None else entry["direction_holds"],
                PROVED_TI if identity else value["reason"] or "",
            )
        )  # fmt: skip
        if not identity and _holds_zero(value):
            rows[-1]["verdict"] = NOT_TOLD
    return rows


def _subject_order(paper: Paper, statistics: Statistics) -> list[Beside]:
    order = next(o for o in paper.orders if o.id == "subject_categories")
    means: dict[str, list[float]] = {}
    for adapter in statistics["adapters"]:
        if (value := adapter["e"]["value"]) is not None:
            means.setdefault(adapter["subject_category"], []).append(value)
    names = [group.subject_category for group in order.ascending if group.subject_category]
    shown = " < ".join(names)
    what = "E by subject category"
    if any(name not in means for name in names):
        return [_row(what, order.place, shown, None, None, "a subject category has no adapter here")]
    values = [sum(means[name]) / len(means[name]) for name in names]
    ours = ", ".join(f"{name} {number(value, E.digits)}" for name, value in zip(names, values, strict=True))
    row = _row(what, order.place, shown, ours, values == sorted(values))
    tests = [h for h in statistics["hypotheses"] if h["hypothesis"].split()[0] in ("H2", "H3") and "p_holm" in h]
    if all(h["difference"]["value"] is None or _holds_zero(h["difference"]) for h in tests):
        row["verdict"] = NOT_TOLD
    return [row]


def _hypotheses(paper: Paper, statistics: Statistics) -> list[Beside]:
    rows = []
    for held in paper.hypotheses:
        for entry in statistics["hypotheses"]:
            if entry["hypothesis"].split()[0] != held.id or (held.id == "H2" and entry["hypothesis"] != "H2"):
                continue
            difference, p, p_holm = entry["difference"], entry["p"], entry.get("p_holm")
            paper_says = held.verdict + (f", p = {held.p.printed}" if held.p else ", no test printed")
            if p is None or p_holm is None or difference["value"] is None:
                rows.append(_row(f"{entry['hypothesis']}: {entry['claim']}", held.place, paper_says, None, None,
                                 entry["reason"] or ""))  # fmt: skip
                continue
            pooled = entry["pooled"]
            tests = f"p = {p:.3g}, Holm {p_holm:.3g}" + (f" (pooled {pooled['p']:.3g})" if pooled else "")
            agrees = (difference["value"] > 0) == (held.verdict != "rejected")
            ours = f"difference {_shown(difference)}, {tests}"
            row = _row(f"{entry['hypothesis']}: {entry['claim']}", held.place, paper_says, ours, agrees, POOLED)
            if _holds_zero(difference):
                row["verdict"] = NOT_TOLD
            elif agrees and held.verdict == "confirmed" and p_holm >= LEVEL:
                row["verdict"] = NOT_ESTABLISHED
            rows.append(row)
    return rows


def _holds_zero(difference: Mapping[str, Any]) -> bool:
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and low <= 0 <= high


def _shown(held: Mapping[str, Any] | None) -> str | None:
    return estimate(held) if held and held["value"] is not None else None
