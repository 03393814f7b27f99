"""Two runs side by side: paired differences of what adapters do to the same prompts, and which prompts changed.

Pairs are as close as the runs allow: the same prompt and, if both runs have it, the same seed, whose base image must
then be the same to the bit. Differences are `after` minus `before`, so a positive one is more disruption. The mean
difference of one adapter has Student's t interval over prompts, which holds for that adapter; over several adapters the
interval is two-way, over prompts and subjects (`raymap.analysis.numerics.crossed`). A single prompt is tested by sign
flips over its seeds; K seeds give no p-value below 2/2^K.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import polars as pl
from scipy import stats

from raymap.analysis.cube import cubes_of
from raymap.analysis.estimates import CrossedTested
from raymap.analysis.hypotheses import holm
from raymap.analysis.map import finite, measured
from raymap.analysis.measures import BASIC, IN_MAP
from raymap.analysis.numerics.crossed import Estimate, Group, contrast
from raymap.analysis.numerics.exchange import sign_flip_p
from raymap.analysis.read import read_noise, read_scores, read_study
from raymap.errors import InputError
from raymap.study.subject import OWN_CATEGORY

MEASURES = tuple(measure.name for measure in IN_MAP)
TESTED = tuple(measure.name for measure in BASIC)
ENDS = ("before", "after")
DECIDE = ("base", "sampler", "protocol", "dtype", "speed", "memory", "clip", "lpips")
TOLERANCE = 1e-3
"""A judge's values of one image differ by less than this between devices."""
TOP = 10
"""How many prompts that got worse, or better, are listed."""


class Difference(CrossedTested):
    """A measure `before` and `after`, and the difference with its interval, p-value and Holm's adjusted p-value."""

    before: float | None
    after: float | None
    p_holm: float | None


class Differences(TypedDict):
    """The differences of the map's measures."""

    e_sem: Difference
    e_sem_signed: Difference
    e_per: Difference


class AdapterDifferences(Differences):
    """The differences of one adapter."""

    adapter: str


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    Attributes:
        prompts, seeds: how many of each both runs have; `seeds` is 0 if they have none in common.
        adapters: one row per adapter: its differences, and `p_holm` by Holm's method over the three measures.
        overall: the same over all adapters and the prompts that are no target of any; None with a single adapter.
        cells: one row per adapter and non-target prompt: `e_sem_before`, `e_sem_after`, `e_sem` (the difference), …,
            `p_e_sem`, `q_e_sem`, `p_e_per`, `q_e_per` (Benjamini-Hochberg over the cells; null without shared seeds).
        alone: the adapters that only `before` has, and those that only `after` has.
        settings: the settings that decide an image or a score and differ, if both runs have their study.yaml.
    """

    prompts: int
    seeds: int
    adapters: list[AdapterDifferences]
    overall: Differences | None
    cells: pl.DataFrame
    alone: tuple[tuple[str, ...], tuple[str, ...]]
    settings: tuple[str, ...]

    def worse(self, n: int = TOP) -> pl.DataFrame:
        """Return the cells whose E_sem rose most."""
        return self.cells.filter(pl.col("e_sem") > 0).sort("e_sem", "prompt", descending=[True, False]).head(n)

    def better(self, n: int = TOP) -> pl.DataFrame:
        """Return the cells whose E_sem fell most."""
        return self.cells.filter(pl.col("e_sem") < 0).sort("e_sem", "prompt").head(n)


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    `study` is empty if it is unknown. `scores` are complete rows without controls; like the rows of `noise` they have a
    column `prompt`, by which the two runs are matched.
    """

    folder: Path
    study: dict[str, Any]
    scores: pl.DataFrame
    noise: pl.DataFrame


def compare_runs(before: Path, after: Path) -> Comparison:
    """Compare two run folders, of which only `scores/` and `noise.arrow` are needed.

    Prompts are matched by their texts if both runs have their study.yaml, else by their ids. Adapters are matched by
    name; if no name is in both runs, by subject, where each run has a single adapter of it (say, of two methods); else
    the only adapter of each run.

    Raises:
        InputError: a folder is not a run, or the two runs cannot be compared; the message has the reasons.
    """
    texts = [_texts(read_study(folder)) for folder in (before, after)]
    one, other = (
        _open(folder, known if all(texts) else {}) for folder, known in zip((before, after), texts, strict=True)
    )
    if not set(one.scores["prompt"]) & set(other.scores["prompt"]):
        raise _refusal(one, other, "no prompt in common", "draw both with one suite")
    shared = _shared_seeds(one, other)
    names = _matched(one, other)
    cells = _cells(one, other, names, shared)
    if cells.is_empty():
        raise _refusal(one, other, "no prompt in common that is not a target", "draw both with one suite")
    rows = [_adapter(part) for part in cells.partition_by("adapter", maintain_order=True)]
    alone = [sorted(set(side.scores["adapter"]) - {n[k] for n in names}) for k, side in enumerate((one, other))]
    return Comparison(
        cells["prompt"].n_unique(),
        shared,
        rows,
        _overall(cells) if len(rows) > 1 else None,
        cells.drop("differences_e_sem", "differences_e_per"),
        (tuple(alone[0]), tuple(alone[1])),
        _differing(one, other),
    )


def _texts(study: dict[str, Any]) -> dict[str, str]:
    return {p["id"]: p["text"] for p in study.get("prompts", ())}


def _open(folder: Path, texts: dict[str, str]) -> Side:
    scores = measured(finite(read_scores(folder)))
    prompt = pl.col("prompt_id").replace_strict(texts, default=pl.col("prompt_id")) if texts else pl.col("prompt_id")
    noise = read_noise(folder)
    return Side(folder, read_study(folder), scores.with_columns(prompt=prompt), noise.with_columns(prompt=prompt))


def _differing(one: Side, other: Side) -> tuple[str, ...]:
    return tuple(
        f"{key} {one.study[key]!r} and {other.study[key]!r}"
        for key in DECIDE
        if key in one.study and key in other.study and one.study[key] != other.study[key]
    )


def _refusal(one: Side, other: Side, reason: str, remedy: str) -> InputError:
    problem = "; ".join([reason, *_differing(one, other)])
    return InputError(f"{one.folder} and {other.folder}", f"cannot be compared ({problem})", remedy)


def _shared_seeds(one: Side, other: Side) -> int:
    """Return how many seeds both runs have, after checking that their base images and judges are the same.

    Raises:
        InputError: they are not the same, or nothing tells whether they are.
    """
    key = ["prompt", "seed"]
    base = ["base_sha256", "clip_base"]
    both = one.scores.select(*key, *base).unique(key).join(other.scores.select(*key, *base).unique(key), on=key)
    if both.is_empty():
        if not one.study or not other.study:
            raise _refusal(one, other, "no seed in common, and no study.yaml that tells how they were drawn",
                           "draw both with the same seeds")  # fmt: skip
        if _differing(one, other):
            raise _refusal(one, other, "drawn with different settings", "draw both alike")
        return 0
    changed = both.filter(pl.col("base_sha256") != pl.col("base_sha256_right"))
    if not changed.is_empty():
        devices = [", ".join(sorted(set(side.scores["device"]))) for side in (one, other)]
        where = f" on {devices[0]} and {devices[1]}" if devices[0] != devices[1] else ""
        raise _refusal(one, other, f"{changed.height} of {both.height} base images differ{where}",
                       "draw both with one base, sampler, batch size and kind of device")  # fmt: skip
    if ((both["clip_base"] - both["clip_base_right"]).abs() > TOLERANCE).any():
        raise _refusal(one, other, "their CLIP cosines of the same base images differ", "score both with one CLIP")
    pair = ["prompt", "seed_a", "seed_b"]
    floors = one.noise.join(other.noise, on=pair)
    if ((floors["e_per"] - floors["e_per_right"]).abs() > TOLERANCE).any():
        raise _refusal(one, other, "their LPIPS of the same base images differ", "score both with one LPIPS")
    return both["seed"].n_unique()


def _matched(one: Side, other: Side) -> list[tuple[str, str]]:
    """Return pairs of adapters: of one name, else the only ones of one subject, else the only one of each run."""
    mine, theirs = (sorted(set(side.scores["adapter"])) for side in (one, other))
    if common := sorted(set(mine) & set(theirs)):
        return [(name, name) for name in common]
    single = [_by_subject(side) for side in (one, other)]
    if subjects := sorted(single[0].keys() & single[1].keys()):
        return [(single[0][subject], single[1][subject]) for subject in subjects]
    if len(mine) == len(theirs) == 1:
        return [(mine[0], theirs[0])]
    reason = f"no adapter has the same name or subject: {', '.join(mine) or 'none'} and {', '.join(theirs) or 'none'}"
    raise _refusal(one, other, reason, "name the adapters alike (`--adapter NAME=PATH`)")


def _by_subject(side: Side) -> dict[str, str]:
    """Return subject -> adapter for every subject with a single adapter."""
    adapters = side.scores.select("subject", "adapter").unique()
    return dict(adapters.filter(~pl.col("subject").is_duplicated()).iter_rows())


def _cells(one: Side, other: Side, names: list[tuple[str, str]], shared: int) -> pl.DataFrame:
    """Return the paired cells of non-target prompts, with the differences of each seed if seeds are shared."""
    named = {mine: mine if mine == theirs else f"{mine} → {theirs}" for mine, theirs in names}
    theirs = {theirs: named[mine] for mine, theirs in names}
    mine = _shifts(one.scores.filter(pl.col("adapter").is_in(list(named))), named)
    yours = _shifts(other.scores.filter(pl.col("adapter").is_in(list(theirs))), theirs)
    key = ["adapter", "prompt"]
    if shared:
        both = mine.join(yours, on=[*key, "seed"])
        cells = both.group_by(key).agg(
            *(pl.col(m).mean().alias(f"{m}_before") for m in MEASURES),
            *(pl.col(f"{m}_right").mean().alias(f"{m}_after") for m in MEASURES),
            *((pl.col(f"{m}_right") - pl.col(m)).alias(f"differences_{m}") for m in TESTED),
            pl.len().alias("n_seeds"),
        )
    else:
        means = [
            side.group_by(key).agg(pl.col(m).mean().alias(f"{m}_{when}") for m in MEASURES)
            for side, when in ((mine, "before"), (yours, "after"))
        ]
        empty = pl.lit([], pl.List(pl.Float64))
        cells = (
            means[0]
            .join(means[1], on=key)
            .with_columns(empty.alias("differences_e_sem"), empty.alias("differences_e_per"), n_seeds=pl.lit(0))
        )
    about = ["subject", "subject_category", "method", "prompt_id", "prompt_category"]
    labels = yours.select(*key, *about).unique(key)
    before = mine.select(*key, was="subject_category").unique(key)
    own = [pl.col(c).replace_strict(OWN_CATEGORY, default="") for c in ("subject_category", "was")]
    found = (
        cells.join(labels, on=key)
        .join(before, on=key)
        .filter(*(category != pl.col("prompt_category") for category in own))
        .with_columns((pl.col(f"{m}_after") - pl.col(f"{m}_before")).alias(m) for m in MEASURES)
        .drop("was")
        .sort("adapter", "prompt_id")
    )
    return found.with_columns(
        pl.Series(f"{kind}_{m}", values, pl.Float64).fill_nan(None)
        for m in TESTED
        for kind, values in zip("pq", _tests(found[f"differences_{m}"]), strict=True)
    )


def _shifts(scores: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    shift = pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base").cast(pl.Float64)
    return scores.with_columns(
        adapter=pl.col("adapter").replace_strict(names, return_dtype=pl.String),
        e_sem=shift.abs(),
        e_sem_signed=shift,
        e_per=pl.col("lpips").cast(pl.Float64),
    )


def _tests(differences: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return sign-flip p-values and their Benjamini-Hochberg q-values; NaN for fewer than two seeds."""
    p, sizes = np.full(len(differences), np.nan), differences.list.len().to_numpy()
    for k in sorted(set(sizes[sizes > 1].tolist())):
        at = np.flatnonzero(sizes == k)
        p[at] = sign_flip_p(np.array(differences[at].to_list()), np.random.default_rng(0))
    q, known = np.full(len(p), np.nan), ~np.isnan(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return p, q


def _adapter(part: pl.DataFrame) -> AdapterDifferences:
    everything, one = Group(np.arange(part.height)), Group(np.array([0]))
    found = {m: contrast(part[m].to_numpy()[:, None], (everything,), (one,)) for m in MEASURES}
    ends = {m: {end: part[f"{m}_{end}"].mean() for end in ENDS} for m in MEASURES}
    return {"adapter": part["adapter"][0], **_row(found, ends)}


def _overall(cells: pl.DataFrame) -> Differences:
    """Return the row of all adapters: before, after and difference over the same prompts, averaged over methods first.

    A prompt that is a target of any adapter has no cell under that adapter, so it counts in none of the three.
    """
    found: dict[str, Estimate] = {}
    ends: dict[str, dict[str, Any]] = {}
    for m in MEASURES:
        values, *sides = (cube.over_methods() for cube in cubes_of(cells, m, *(f"{m}_{end}" for end in ENDS)))
        groups = [Group(np.arange(n)) for n in values.shape]
        found[m] = contrast(values, groups[:1], groups[1:])
        complete = ~np.isnan(values).any(axis=1)
        means = [float(side[complete].mean()) if complete.any() else None for side in sides]
        ends[m] = dict(zip(ENDS, means, strict=True))
    return _row(found, ends)


def _row(found: dict[str, Estimate], ends: dict[str, dict[str, Any]]) -> Differences:
    adjusted = holm([estimate.p for estimate in found.values()])
    row = {
        m: {**ends[m], **estimate.tested(), "p_holm": p_holm}
        for (m, estimate), p_holm in zip(found.items(), adjusted, strict=True)
    }
    return cast(Differences, row)
