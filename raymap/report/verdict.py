"""The verdict in plain sentences: what shifted, how sure that is, where to look first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from raymap.analysis.numerics.exchange import least_matching_p, least_sign_flip_p
from raymap.analysis.shifts import FDR
from raymap.report.source import Run

LOOK_IN_ALL, LOOK = 5, 3
Level = Literal["ok", "note", "warn", "bad"]


@dataclass(frozen=True)
class Sentence:
    """A statement and how it bears on trusting or releasing: `ok`, `note`, `warn` or `bad`."""

    text: str
    level: Level = "note"


@dataclass(frozen=True)
class Look:
    """A cell to look at first; `sure`: its meaning shifted beyond re-seeding, at the false-discovery rate."""

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
    """`alarm` comes before everything else: a reason to trust nothing below it."""

    alarm: Sentence | None
    headline: str
    look: tuple[Look, ...]
    adapters: tuple[AdapterVerdict, ...]
    certainty: tuple[Sentence, ...]


def verdict(run: Run) -> Verdict:
    """Conclude from a run's tests and controls; counts are of non-target prompts, at a false-discovery rate of 5 %."""
    proved = set(run.scores.group_by("adapter").agg(pl.col("drawn").any()).filter(~pl.col("drawn"))["adapter"])
    counts = {row["adapter"]: row for row in run.statistics["shifts"]}
    adapters = tuple(
        _adapter(row, counts.get(row["adapter"], {}), row["adapter"] in proved, run.others)
        for row in run.statistics["adapters"]
    )
    control = run.statistics["identity_control"]
    alarm = None
    if control["present"] and not control["exact"]:
        alarm = Sentence(
            f"The identity control is not zero (E_sem up to {control['max_e_sem']:.3g}, E_per up to "
            f"{control['max_e_per']:.3g}): base and adapted images were not computed alike, and nothing below can be "
            "trusted.",
            "bad",
        )
    look = _looks(run.others, LOOK_IN_ALL, one_a_prompt=True)
    headline = " ".join(
        filter(None, (_headline(run.statistics, proved, run.scores["seed"].n_unique()), _missing(run.statistics)))
    )
    return Verdict(alarm, headline, look, adapters, tuple(_certainty(run)))


def _headline(statistics: dict[str, Any], proved: set[str], seeds: int) -> str:
    total = len(statistics["adapters"])
    if not total:
        return "No adapter was measured."
    counts = statistics["shifts"]
    sem, per, signed = (sum(bool(row[f"shifted_{name}"]) for row in counts) for name in ("sem", "per", "signed"))
    same = sum(a["adapter"] in proved for a in statistics["adapters"])
    if not (sem or per or signed):
        said = "On no single non-target prompt is a shift established"
        moving = [a for a in statistics["adapters"] if a["e_sem"]["value"]]
        if moving and least_sign_flip_p(seeds) > FDR:
            most = max(moving, key=lambda a: a["e_sem"]["value"])
            said += (
                f" ({seeds} seeds can establish none of meaning or mean score); mean E_sem reaches "
                f"{most['e_sem']['value']:.4f}, under {most['adapter']}"
            )
        said += "."
    else:
        meaning = f"{_counted(sem, total, 'no adapter')} {_verb(sem, 'is', 'are')} shown to move the meaning"
        picture = f"{_counted(per, total)} to move their pictures further"
        score = f"{_counted(signed, total)} to change the mean CLIP score of some"
        said = _sentence(f"{meaning} of non-target prompts further than re-seeding does, {picture}, and {score}.")
    if not same:
        return said
    return (
        f"{said} {_sentence(_counted(same, total))} {_verb(same, 'leaves', 'leave')} every picture as it is, by proof."
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _counted(n: int, total: int, none: str = "none") -> str:
    return (
        none if n == 0 else "the only adapter" if n == total == 1 else f"all {n}" if n == total else f"{n} of {total}"
    )


def _verb(n: int, one: str, many: str) -> str:
    return one if n <= 1 else many


def _adapter(row: dict[str, Any], counts: dict[str, Any], proved: bool, others: pl.DataFrame) -> AdapterVerdict:
    known = (row["adapter"], row["method"], row["subject_category"])
    if row["e_sem"]["value"] is None:
        return AdapterVerdict(*known, Sentence("No non-target prompt was measured.", "warn"), ())
    if proved:
        text = (
            "Every picture is the base's own, by proof: no prompt holds the learned token, and the denoiser is "
            "untouched."
        )
        return AdapterVerdict(*known, Sentence(text, "ok"), ())
    look = _looks(others.filter(pl.col("adapter") == row["adapter"]), LOOK)
    if not counts:
        return AdapterVerdict(*known, Sentence("No cell could be tested.", "warn"), look)
    parts = [
        f"{what} on {counts[f'shifted_{name}']} of {counts[f'tested_{name}']}"
        for name, what in (("sem", "meaning"), ("per", "picture"))
        if counts[f"tested_{name}"]
    ]
    said = [f"Shifts beyond re-seeding, in prompts: {', '.join(parts)}."] if parts else []
    if counts["tested_signed"]:
        # Seeds are paired: this test finds changes far smaller than what re-seeding does.
        changed = f"mean CLIP score on {counts['shifted_signed']} of {counts['tested_signed']}"
        said.append(f"Changed at all, however little: {changed}.")
    shifts = " ".join(said) or "No cell could be tested."
    signed = row["e_sem_signed"]["value"]
    direction = "lower" if signed < 0 else "higher"
    text = (
        f"{shifts} On average the CLIP score moves by {row['e_sem']['value']:.4f} and ends {abs(signed):.4f} "
        f"{direction}; LPIPS {row['e_per']['value']:.3f}."
    )
    any_shift = any(counts[f"shifted_{name}"] for name in ("sem", "per", "signed"))
    level: Level = "bad" if counts["shifted_sem"] else "warn" if any_shift else "note"
    return AdapterVerdict(*known, Sentence(text, level), look)


def _looks(cells: pl.DataFrame, count: int, one_a_prompt: bool = False) -> tuple[Look, ...]:
    """Return the cells to look at first: established shifts of meaning, then the largest E_sem."""
    known = cells.filter(pl.col("e_sem") > 0).with_columns(sure=(pl.col("q_sem") <= FDR).fill_null(False))
    ordered = known.sort("sure", "e_sem", "prompt_id", "adapter", descending=[True, True, False, False])
    first = (ordered.unique("prompt_id", keep="first", maintain_order=True) if one_a_prompt else ordered).head(count)
    columns = ("prompt_id", "prompt", "adapter", "e_sem", "e_sem_signed", "e_per", "sure")
    return tuple(Look(*row) for row in first.select(columns).rows())


def _certainty(run: Run) -> list[Sentence]:
    statistics, said = run.statistics, []
    if missing := _missing(statistics):
        said.append(Sentence(missing, "bad"))
    failures = run.folder.root / "failures.jsonl"
    why = ", because batches failed (failures.jsonl says why; the same command tries them again)"
    control, floor = statistics["identity_control"], statistics["noise_floor"]
    if not control["present"]:
        said.append(Sentence("No identity control was drawn: nothing shows that no shift is measured as none.", "warn"))
    elif control["exact"]:
        said.append(Sentence(f"The identity control is exactly zero in all {control['cells']} cells.", "ok"))
    if floor["pairs"]:
        above = {name: int(run.others[f"above_tau_{name}"].sum()) for name in ("sem", "per")}
        taus = f"τ_sem = {floor['tau_sem']['value']:.4f}, τ_per = {floor['tau_per']['value']:.3f}"
        said.append(
            Sentence(
                f"Noise floor from {floor['pairs']} pairs of base seeds: {taus}. Of {run.others.height} non-target "
                f"cells {above['sem']} lie above the first and {above['per']} above the second. A cell is a mean over "
                "seeds, a threshold a percentile of single pairs: the tests decide, the thresholds orient."
            )
        )
        said.append(_matched(statistics))
    else:
        said.append(Sentence("There is no noise floor: no pair of base seeds was measured.", "warn"))
    if few := _few_seeds(run.scores["seed"].n_unique() if statistics["shifts"] else 0):
        said.append(Sentence(few, "warn"))
    if short := statistics["incomplete"]:
        cells = sum(entry["cells"] for entry in short)
        said.append(
            Sentence(
                f"Not every cell holds all {short[0]['seeds']} seeds: {cells} of {run.cells.height} cells lack "
                f"some{why if failures.exists() else ''}.",
                "warn",
            )
        )
    said.append(
        Sentence(f"Counts control the false-discovery rate at {FDR:.0%} (Benjamini-Hochberg, adapter by adapter).")
    )
    return said


def _missing(statistics: dict[str, Any]) -> str | None:
    """Return what the run is about and nothing was measured of; None where all was."""
    lost = statistics.get("missing", {})
    parts = [
        f"{len(names)} {what if len(names) == 1 else f'{what}s'} ({', '.join(names[:3])}{', …' * (len(names) > 3)})"
        for what in ("adapter", "prompt")
        if (names := lost.get(f"{what}s"))
    ]
    return f"Nothing could be measured of {' and '.join(parts)}: every batch failed." if parts else None


def _matched(statistics: dict[str, Any]) -> Sentence:
    """Return how many cells lie above the matched floor, or why there is none."""
    held = {name: [a[f"above_matched_{name}"] for a in statistics["adapters"]] for name in ("sem", "per")}
    known = {name: [n for n in counts if n is not None] for name, counts in held.items()}
    if not all(known.values()):
        reason = statistics["noise_floor"]["matched"]["e_sem"]["reason"]
        return Sentence(f"No floor is matched to a cell: {reason or 'no cell has one'}.", "note")
    return Sentence(
        f"Above the floor that is matched to a cell (a mean over as many seed pairs, prompt by prompt) lie "
        f"{sum(known['sem'])} cells in E_sem and {sum(known['per'])} in E_per; re-seeding alone would put about "
        "1 in 20 of all cells there, or fewer."
    )


def _few_seeds(seeds: int) -> str | None:
    """Return what too few seeds mean for tests of single cells; None where they suffice, or there is no test."""
    if not seeds:
        return None
    sem, signed = least_matching_p(seeds), least_sign_flip_p(seeds)
    if sem / FDR <= 0.01:  # of the prompts would have to reach the smallest p, for any to pass Benjamini-Hochberg
        return None
    known = f"With {seeds} seeds a shift equal in all of them has p = {sem:.2g} (meaning) and {signed:.2g} (mean score)"
    if signed > FDR:
        return f"{known} at best, so that neither can be established for a single prompt. More seeds would tell more."
    needed = " and ".join("never" if p > FDR else f"only where {p / FDR:.0%} of its prompts" for p in (sem, signed))
    return (
        f"{known}. By the rule for false discoveries these are established for an adapter {needed} reach that; more "
        "seeds would tell more."
    )
