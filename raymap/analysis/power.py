"""What effect on E_sem this run can detect, and how many seeds are needed to detect a given one.

A cell of prompt p and subject (or adapter) s is a mean over K seeds. It is modelled as the mean of its categories +
prompt_p + subject_s + cell_ps + the mean of K seed effects, all independent. The variance components are those of the
two-way analysis of variance without replication (Searle, Casella & McCulloch 1992, Variance Components, chapter 4),
within categories; an estimate below 0 is set to 0. `seed` is the variance between seeds within a cell. What seeds have
in common over the subjects of a prompt is counted as part of the prompt, so the numbers of seeds err upwards.

A claim's estimate has the variance and the degrees of freedom that raymap.analysis.numerics.crossed expects from these
components. Its one-sided t test at 5 % detects an effect of nc · SE in 80 % of runs, where nc is the noncentrality for
which Student's noncentral t exceeds the critical value that often (Cohen 1988, Statistical Power Analysis, chapter 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import special, stats

from raymap.analysis.cube import Cube, cubes_of, moving
from raymap.analysis.map import finite
from raymap.analysis.numerics.crossed import combined
from raymap.analysis.statistics import ComponentSummary, Power, PowerClaim
from raymap.study.methods.method import CONTROL

ALPHA, POWER = 0.05, 0.8
MOST_SEEDS = 1_000
Sizes = Sequence[tuple[float, int]]
"""For each group the weight of its mean in the contrast, and the number of its members."""


@dataclass(frozen=True)
class Components:
    """Variances of one cell: between prompts, subjects and cells, and of a single seed.

    `seed` is None if it is unknown; then `cell` contains it.
    """

    prompt: float
    subject: float
    cell: float
    seed: float | None

    def residual(self, seeds: float) -> float:
        """Return the variance of a cell's mean over so many seeds that neither prompt nor subject explains."""
        return self.cell + (self.seed or 0.0) / seeds


def components(
    cells: np.ndarray, prompts: np.ndarray, subjects: np.ndarray, seed: float | None, seeds: float
) -> Components | None:
    """Estimate the variance components; None if fewer than two prompts or subjects of one category are complete.

    Args:
        cells: float (P, S), means over `seeds` seeds; rows with a NaN are left out.
        prompts, subjects: str (P,) and (S,), their categories.
        seed: the variance of a single seed within a cell; None if it is unknown.
    """
    complete = ~np.isnan(cells).any(axis=1)
    cells, prompts = cells[complete], prompts[complete]
    rows, columns = (np.unique(names, return_inverse=True)[1] for names in (prompts, subjects))
    total, free = 0.0, 0
    for r in range(rows.max(initial=-1) + 1):
        for c in range(columns.max(initial=-1) + 1):
            part = cells[np.ix_(rows == r, columns == c)]
            total += float(((part - part.mean(0) - part.mean(1, keepdims=True) + part.mean()) ** 2).sum())
            free += (part.shape[0] - 1) * (part.shape[1] - 1)
    if not free:
        return None
    left = total / free
    by_prompt, by_subject = _within(cells.mean(axis=1), rows), _within(cells.mean(axis=0), columns)
    between_seeds = 0.0 if seed is None else seed / seeds
    return Components(
        max(by_prompt - left / cells.shape[1], 0.0), max(by_subject - left / cells.shape[0], 0.0),
        max(left - between_seeds, 0.0), seed,
    )  # fmt: skip


def _within(values: np.ndarray, groups: np.ndarray) -> float:
    """Return the pooled variance within groups."""
    sizes = np.bincount(groups)
    residuals = values - (np.bincount(groups, values) / sizes)[groups]
    return float((residuals**2).sum() / (len(values) - len(sizes)))


def expected_variance(parts: Components, rows: Sizes, columns: Sizes, seeds: float) -> tuple[float, float]:
    """Return the variance and degrees of freedom that `crossed.contrast` is expected to find for such groups.

    Args:
        rows, columns: (weight, members) of each group. A side that has a group with a single member counts as fixed.
    """
    left = parts.residual(seeds)

    def side(groups: Sizes, others: Sizes, own: float) -> list[tuple[float, int]] | None:
        if any(n < 2 for _, n in groups):
            return None
        one = own * sum(w for w, _ in others) ** 2 + left * sum(w**2 / n for w, n in others)
        return [(w**2 * one / n, n - 1) for w, n in groups]

    by_row, by_column = side(rows, columns, parts.prompt), side(columns, rows, parts.subject)
    twice = left * sum(w**2 / n for w, n in rows) * sum(w**2 / n for w, n in columns)
    return combined(by_row, by_column, twice if by_row and by_column else 0.0)


def detectable(variance: float, df: float) -> float:
    """Return the smallest effect that a one-sided t test at ALPHA detects with probability POWER."""
    critical = stats.t.isf(ALPHA, df)
    return float(special.nctdtrinc(df, 1 - POWER, critical) * np.sqrt(variance))


def seeds_needed(parts: Components, rows: Sizes, columns: Sizes, wanted: float) -> int | None:
    """Return the fewest seeds, at least 2, that make the effect `wanted` detectable; None if MOST_SEEDS are too few."""

    def enough(seeds: int) -> bool:
        return detectable(*expected_variance(parts, rows, columns, seeds)) <= wanted

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def seed_variance(rows: pl.DataFrame, unit: str) -> tuple[float | None, int]:
    """Return the variance of |a_adapted - a_base| between seeds, pooled over prompts and units, and its df.

    Args:
        rows: finite rows as `stream_scores` returns them, controls left out.
        unit: `adapter` or `subject`. Values of a subject are means over its methods, for seeds that all of them have.
    """
    if rows.is_empty():
        return None, 0
    names = [rows[name].to_physical().to_numpy().astype(np.int64) for name in ("prompt_id", unit)]
    seeds = rows["seed"].unique().sort()
    units, k = int(names[1].max()) + 1, len(seeds)
    at = (names[0] * units + names[1]) * k + seeds.search_sorted(rows["seed"]).to_numpy()
    n = np.bincount(at, minlength=-(-(int(at.max()) + 1) // k) * k)
    shift = np.abs(rows["clip_adapted"].cast(pl.Float64).to_numpy() - rows["clip_base"].cast(pl.Float64).to_numpy())
    values = (np.bincount(at, shift, len(n)) / np.maximum(n, 1)).reshape(-1, k)
    counts = n.reshape(-1, k)
    whole = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
    held = whole.sum(axis=1)
    means = np.where(whole, values, 0.0).sum(axis=1) / np.maximum(held, 1)
    squares = np.where(whole, (values - means[:, None]) ** 2, 0.0).sum()
    df = int(np.maximum(held - 1, 0).sum())
    return (float(squares / df) if df else None), df


def power(study: pl.DataFrame, scores: pl.DataFrame, tau: float | None) -> Power:
    """Return the smallest detectable effects of H1, H2, H3 and of a comparison of two adapters, and the seeds needed.

    Args:
        study: the map without controls.
        scores: as `stream_scores` returns them.
        tau: the noise floor of E_sem, half of which is the effect that is wanted; None if there is none.
    """
    # Cells of adapters are no averages over methods; adapters that shift nothing by proof have no variance.
    moved = study.filter((pl.col("e_sem").max() > 0).over("adapter"))
    averaged = moving(study)
    cubes = {
        "subject": cubes_of(averaged, "e_sem")[0],
        "adapter": cubes_of(moved.with_columns(subject=pl.col("adapter"), method=pl.lit("any")), "e_sem")[0],
    }
    used = study.filter(pl.col("n_seeds") > 0)["n_seeds"].to_numpy()
    # The variances of the cells' means average to that of a cell with the harmonic mean of their seeds.
    seeds = float(len(used) / (1 / used).sum()) if len(used) else 0.0
    rows = finite(scores.filter(pl.col("method") != CONTROL))
    rows_of = {
        unit: rows.filter(pl.col("adapter").is_in(frame["adapter"].unique().implode()))
        for unit, frame in (("subject", averaged), ("adapter", moved))
    }
    held: dict[str, Components | None] = {}
    described = {}
    for unit, cube in cubes.items():
        variance, df = seed_variance(rows_of[unit], unit)
        cells = cube.over_methods()
        known = ~np.isnan(cells).all(axis=0)
        parts = components(cells[:, known], cube.prompt_categories, cube.subject_categories[known], variance, seeds)
        held[unit] = parts
        described[f"{unit}s"] = _described(parts, df)
    return {
        "alpha": ALPHA, "power": POWER, "seeds": seeds, "wanted": tau / 2 if tau else None,
        "wanted_is": "half of tau_sem",
        "method": "noncentral t of the crossed, one-sided test; components estimated from this run",
        "components": described,
        "claims": [
            _claim(name, held[unit], *_sizes(cubes[unit], *groups), seeds, tau)
            for name, unit, groups in (
                ("H1", "subject", ("people", ("face",))),
                ("H2", "subject", (None, ("style", "face"))),
                ("H3 object above face", "subject", (None, ("object", "face"))),
                ("H3 style above object", "subject", (None, ("style", "object"))),
                ("an adapter's mean E_sem above another's", "adapter", (None, ())),
            )
        ],
    }  # fmt: skip


def _described(parts: Components | None, df: int) -> ComponentSummary:
    if parts is None:
        reason = "needs two prompts and two subjects of one category, complete"
        return {"sd_prompt": None, "sd_subject": None, "sd_cell": None, "sd_seed": None, "seed_df": df,
                "reason": reason}  # fmt: skip
    return {
        "sd_prompt": parts.prompt**0.5, "sd_subject": parts.subject**0.5, "sd_cell": parts.cell**0.5,
        "sd_seed": None if parts.seed is None else parts.seed**0.5, "seed_df": df,
        "reason": None if df else "one seed a cell: its variance is part of sd_cell",
    }  # fmt: skip


def _sizes(cube: Cube, prompts: str | None, subjects: tuple[str, ...]) -> tuple[Sizes, Sizes]:
    """Return the group sizes of a contrast between prompt categories, between subject categories or of two adapters."""
    cells = cube.over_methods()
    known = ~np.isnan(cells).all(axis=0)
    complete = ~np.isnan(cells[:, known]).any(axis=1)

    def rows(categories: set[str]) -> int:
        return int(complete[cube.rows(categories).members].sum())

    def columns(category: str) -> int:
        return int(known[cube.columns(category).members].sum())

    if prompts:
        others = set(cube.prompt_categories.tolist()) - {prompts}
        return ((1.0, rows({prompts})), (-1.0, rows(others))), ((1.0, columns(subjects[0])),)
    if not subjects:  # two adapters of one category, over the fewest non-target prompts that any category has
        present = sorted(set(cube.subject_categories.tolist()))
        n = min((rows(cube.non_target(category)) for category in present), default=0)
        return ((1.0, n),), ((1.0, int(known.sum() > 0)), (-1.0, int(known.sum() > 1)))
    return ((1.0, rows(cube.non_target(*subjects))),), tuple(
        (weight, columns(category)) for weight, category in zip((1.0, -1.0), subjects, strict=True)
    )


def _claim(
    name: str, parts: Components | None, rows: Sizes, columns: Sizes, seeds: float, tau: float | None
) -> PowerClaim:
    """Return what can be detected for one claim; each step that cannot be taken leaves its reason."""
    entry: PowerClaim = {
        "claim": name, "prompts": [n for _, n in rows], "subjects": [n for _, n in columns], "se": None, "df": None,
        "detectable": None, "detectable_at_any_seeds": None, "seeds_needed": None, "reason": None,
    }  # fmt: skip
    if min(n for _, n in (*rows, *columns)) < 1:
        entry["reason"] = "a group is empty"
        return entry
    if parts is None or all(any(n < 2 for _, n in side) for side in (rows, columns)):
        entry["reason"] = "too few complete prompts or subjects to estimate variances"
        return entry
    variance, df = expected_variance(parts, rows, columns, seeds)
    if variance == 0:
        entry["reason"] = "all values are equal: no spread to judge by"
        return entry
    entry["se"], entry["df"], entry["detectable"] = variance**0.5, df, detectable(variance, df)
    if parts.seed is None:
        entry["reason"] = "one seed a cell: its variance is not known"
        return entry
    entry["detectable_at_any_seeds"] = detectable(*expected_variance(parts, rows, columns, np.inf))
    if not tau:
        entry["reason"] = "no noise floor, so no effect is wanted"
        return entry
    entry["seeds_needed"] = seeds_needed(parts, rows, columns, tau / 2)
    if entry["seeds_needed"] is None:
        entry["reason"] = f"{MOST_SEEDS} seeds are too few: prompts and subjects limit it"
    return entry
