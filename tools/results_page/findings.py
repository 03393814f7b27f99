"""What docs/results.md says about recomputed runs: the rows of its tables, and what its conditional sentences need."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from raymap.analysis.paper.published import METHODS, MethodCell, Paper, load_paper
from raymap.analysis.statistics import MethodOrder, Statistics
from raymap.report.against import PROVED, against_paper
from raymap.results import Run
from raymap.study.methods.method import CONTROL
from raymap.study.suite import CATEGORIES
from tools.results_page.facts import read_studies

SUBJECTS = ("face", "object", "style")
SEED_MATCHED = "seed-matched"
TOP = 5
NORMAL_MEAN = math.sqrt(2 / math.pi) / 1.959964
"""The mean of |d| over its 95th percentile for a normal d around 0: the mean of re-seeding in units of τ, if normal."""


def context(root: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Return what the template is rendered with.

    Args:
        root: holds the recomputed run folders, one of which is called `paper`.
        plan: what the full study would take (tools.results_page --plan); empty if it was not estimated.
    """
    studies, published = read_studies(root), load_paper()
    paper = studies["paper"]
    rows = against_paper(paper.statistics, paper.run.study)
    return {
        "paper": paper,
        "why": studies.get("why"),
        "others": {name: study for name, study in studies.items() if name not in ("paper", "why")},
        "factorials": {
            name: {**study.factorial, "reading": by_measure(study.factorial["reading"])}
            for name, study in studies.items()
            if study.factorial
        },
        "published": published,
        "against": rows,
        "methods": methods(paper.statistics, published),
        "orders": orders(paper.statistics),
        "subject_means": subject_means(paper.statistics),
        "categories": category_table(paper.statistics),
        "regions": region_table(paper.statistics),
        "below": below_floor(paper.statistics),
        "proved": len(proved(paper.run)),
        "established": established(paper.statistics),
        "fid": fid_order(paper.run, published),
        "attention": attention(studies["why"].run) if "why" in studies else None,
        "causes": causes(studies["why"].run) if "why" in studies else None,
        "inversion": inversion(paper.statistics, published),
        "plan": plan,
    }


def methods(statistics: Statistics, published: Paper) -> list[dict[str, Any]]:
    """Return Table 1, each row with the paper's cell beside it."""
    known: dict[tuple[str, str], MethodCell] = {(c.method, c.subject_category): c for c in published.table1.cells}
    rows = [row for row in statistics["table_1"] if (row["method"], row["subject_category"]) in known]
    rows.sort(key=lambda row: (METHODS.index(row["method"]), SUBJECTS.index(row["subject_category"])))
    return [{**row, "paper": known[row["method"], row["subject_category"]]} for row in rows]


def orders(statistics: Statistics) -> list[MethodOrder]:
    """Return the differences of E and of E_sem between neighbouring methods that are not decided by a proof."""
    return [row for row in statistics["method_order"] if PROVED.isdisjoint(row["claim"].split(" < "))]


def subject_means(statistics: Statistics) -> dict[str, float]:
    """Return mean E by subject category, over all methods."""
    found: dict[str, list[float]] = {}
    for adapter in statistics["adapters"]:
        if (value := adapter["e"]["value"]) is not None:
            found.setdefault(adapter["subject_category"], []).append(value)
    return {name: fmean(found[name]) for name in SUBJECTS if name in found}


def category_table(statistics: Statistics) -> dict[str, Any]:
    """Return Figure 3: E_sem by prompt and subject category, and how each subject category ranks the prompt ones."""
    rows = statistics["category_by_category"]
    cells = {(row["prompt_category"], row["subject_category"]): row["e_sem"] for row in rows}
    means = {key: value for key, cell in cells.items() if (value := cell["value"]) is not None}
    cells = {key: cells[key] for key in means}
    subjects = [name for name in SUBJECTS if any(key[1] == name for key in cells)]
    prompts = [name for name in CATEGORIES if any(key[0] == name for key in cells)]
    ranked = {
        s: sorted((p for p in prompts if (p, s) in cells), key=lambda p: -means[p, s])
        for s in subjects
    }  # fmt: skip
    listed = {
        "most_fragile": Counter(row["prompt_category"] for row in statistics["most_fragile"]),
        "most_robust": Counter(row["prompt_category"] for row in statistics["most_robust"]),
    }
    return {"cells": cells, "subjects": subjects, "prompts": prompts, "ranked": ranked, "listed": listed}


def region_table(statistics: Statistics) -> list[tuple[str, dict[str, int]]]:
    """Return Figure 1: how many adapters of each method lie in each region."""
    found: dict[str, Counter[str]] = {}
    for row in statistics["regions"]:
        found.setdefault(row["region"] or "unknown", Counter())[row["method"]] += 1
    return sorted((name, dict(counts)) for name, counts in found.items())


def below_floor(statistics: Statistics) -> tuple[int, int]:
    """Return how many adapters have a mean E_sem below τ_sem, and how many have a place in Figure 1."""
    placed = [row["region"] for row in statistics["regions"] if row["region"]]
    return sum(region in ("safe", "visual drift") for region in placed), len(placed)


def proved(run: Run) -> set[str]:
    """Return the adapters, controls left out, that leave every image as it is, by proof."""
    drawn = run.scores.filter(pl.col("method") != CONTROL).group_by("adapter").agg(pl.col("drawn").any())
    return set(drawn.filter(~pl.col("drawn"))["adapter"])


def established(statistics: Statistics) -> int:
    """Return how many of the claims H2 and H3 pass Holm's correction."""
    asked = [row for row in statistics["hypotheses"] if row["hypothesis"].split()[0] in ("H2", "H3")]
    return sum((p := row.get("p_holm")) is not None and p < 0.05 for row in asked)


def fid_order(run: Run, published: Paper) -> dict[str, Any]:
    """Return the mean seed-matched FID of the groups that the paper orders (§4.4), and whether its order holds here."""
    order = next(order for order in published.orders if order.id == "fid")
    about = dict(run.cells.select("adapter", pl.struct("method", "subject_category")).unique().iter_rows())
    found = []
    for group in order.ascending:
        asked: dict[str, Any] = {"method": group.method, "subject_category": group.subject_category}
        values = [
            value
            for row in run.statistics.get("distances", [])
            if (row["metric"], row["design"]) == ("fid", SEED_MATCHED)
            and (value := row["value"]) is not None
            and about.get(row["adapter"]) == asked
        ]
        found.append(asked | {"fid": fmean(values) if values else None})
    means = [row["fid"] for row in found]
    holds = None if None in means else means == sorted(means)
    return {"place": order.place, "groups": found, "holds": holds}


def attention(run: Run) -> dict[str, Any] | None:
    """Return what the section on attention shows: correlations, adapters, and both ends of the paper's Table 3."""
    held = run.attention
    if not held:
        return None
    zero = proved(run)
    of = dict(run.cells.select("adapter", "subject_category").unique().iter_rows())
    rows = [row for row in held["adapters"] if row["tokens"] == "all" and row["adapter"] not in zero]
    free = {row["adapter"]: row for row in rows if row["protocol"] == "free"}
    direct = {row["adapter"]: row for row in held["direct"]}
    table = [
        {**row, "by_subject": _by_subject({name: value for name, value in row["delta_e4"].items() if name in free}, of)}
        for row in held["table_3"]
    ]
    return {
        "control": held["identity_control"],
        "correlations": [
            row for row in held["correlations"]
            if (row["tokens"], row["with"], row["measure"]) == ("all", "e_sem", "delta")
        ],
        "adapters": [{**row, "direct": direct[name]} for name, row in free.items() if name in direct],
        "ends": {"most disrupted": table[:3], "least disrupted": table[-3:]},
        "subjects": [name for name in SUBJECTS if name in of.values()],
    }  # fmt: skip


def _by_subject(values: dict[str, float], of: dict[str, str]) -> dict[str, float]:
    """Average the values of adapters by their subject categories."""
    held: dict[str, list[float]] = {}
    for adapter, value in values.items():
        held.setdefault(of[adapter], []).append(value)
    return {name: fmean(part) for name, part in held.items()}


def causes(run: Run) -> dict[str, Any] | None:
    """Return what the section on interventions shows: rows of E_sem by adapter, and sentences that compare methods."""
    held = run.interventions
    if not held:
        return None
    dose = [row for row in held["dose"] if row["measure"] == "e_sem"]
    parts: dict[str, dict[str, Any]] = {}
    for row in held["parts"]:
        if row["measure"] == "e_sem":
            parts.setdefault(row["adapter"], {})[row["family"]] = row
    random: dict[str, dict[str, Any]] = {}
    for compared in held["random"]:
        random.setdefault(compared["adapter"], {})[compared["measure"]] = compared["random_over_learned"]
    return {
        "checks": held["checks"],
        "dose": dose,
        "doses": [point["dose"] for point in dose[0]["curve"]] if dose else [],
        "adapters": list(parts | random),
        "parts": parts,
        "random": random,
        "methods": by_measure(line for line in held["reading"] if "random updates of the norm and rank of" not in line),
    }


def by_measure(lines: Iterable[str]) -> dict[str, str]:
    """Join the sentences that begin with `E_sem: `, and those that begin with `E_per: `, to one text each."""
    found: dict[str, list[str]] = {}
    for measure, _, said in (line.partition(": ") for line in lines):
        found.setdefault(measure, []).append(said.rstrip("."))
    return {measure: "; ".join(said) + "." for measure, said in found.items()}


def inversion(statistics: Statistics, published: Paper) -> dict[str, Any]:
    """Return the paper's E_sem of Textual Inversion and what re-seeding gives, both in units of τ_sem too."""
    cells = [cell.e_sem for cell in published.table1.cells if cell.method in PROVED]
    printed = sorted(cells, key=lambda figure: figure.value)
    tau = published.noise_floor.tau_sem.value
    floor = statistics["noise_floor"]
    own = floor["tau_sem"]["value"] if floor["tau_sem"] else None
    mean = floor["mean_e_sem"]["value"]
    return {
        "printed": (printed[0].printed, printed[-1].printed),
        "printed_share": tuple(figure.value / tau for figure in (printed[0], printed[-1])),
        "reseeding": floor["mean_e_sem"],
        "reseeding_share": mean / own if own and mean is not None else None,
        "normal_share": NORMAL_MEAN,
    }
