"""Checks how well the reported tests and intervals hold, on simulated maps with prompt and subject effects.

    python -m benchmarks.calibration [--sets 2000]

Every data set has the paper's shape: 200 prompts in six categories, 15 subjects in three, and one number per prompt and
subject (the mean of its methods). Such a cell is .020 plus an effect of its prompt, one of its subject and one of its
own, with the standard deviations .010, .002 and .008 that a small study showed. The null has nothing else. The
alternative adds a shift to all cells of style subjects (H2), or to people prompts under face subjects (H1).

The first table shows how often each test rejects at 5 % under the null (it should be 4 to 6 %) and with each shift, and
how often the 95 % interval contains the truth. The pooled Mann-Whitney U is the paper's test.

The second table is about single cells: 200 prompts under 15 adapters that only draw the base with other seeds. It shows
the share of cells above the 95th percentile of single seed pairs (the paper's floor) and above the matched threshold,
and the share of p-values up to 5 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from raymap.analysis.floor import pairs_of
from raymap.analysis.hypotheses import pooled
from raymap.analysis.numerics.crossed import Group, contrast, permuted
from raymap.analysis.numerics.exchange import matching_p, rank_sum_p
from raymap.plan.blocks import noise_pairs

COUNTS = (33, 33, 34, 34, 33, 33)  # people, animals, objects, scenes, styles, abstract
SD_PROMPT, SD_SUBJECT, SD_CELL = 0.010, 0.002, 0.008
CATEGORY = np.repeat(np.arange(6), COUNTS)
KIND = np.repeat(np.arange(3), 5)  # face, object, style
LEVEL = 0.05


def draw(rng: np.random.Generator, shift: float, where: Callable[[], np.ndarray], subject_sd: float) -> np.ndarray:
    """Return one data set, (200, 15), with `shift` added to the cells that `where` selects."""
    prompts = rng.normal(0, SD_PROMPT, (200, 1))
    subjects = rng.normal(0, subject_sd, (1, 15))
    cells: np.ndarray = 0.020 + prompts + subjects + rng.normal(0, SD_CELL, (200, 15)) + shift * where()
    return cells


def style_cells() -> np.ndarray:
    """Select the cells of style subjects, bool (200, 15)."""
    return np.broadcast_to(KIND == 2, (200, 15))


def people_under_faces() -> np.ndarray:
    """Select the cells of people prompts and face subjects, bool (200, 15)."""
    return (CATEGORY == 0)[:, None] & (KIND == 0)[None, :]


def group(mask: np.ndarray, weight: float = 1.0) -> Group:
    """Return the group of the positions that a mask selects."""
    return Group(np.flatnonzero(mask), weight)


def h1(cells: np.ndarray) -> dict[str, tuple[float | None, bool | None]]:
    """Compare people with other prompts under faces: return each test's p-value and whether its interval contains 0."""
    rows = (group(CATEGORY == 0), group(CATEGORY != 0, -1.0))
    estimate = contrast(cells, rows, (group(KIND == 0),), "greater")
    faces = cells[:, KIND == 0]
    pool = pooled(faces[CATEGORY == 0], faces[CATEGORY != 0], "greater")
    return {"pooled U": (pool.p if pool else None, None), "crossed t": (estimate.p, _contains(estimate, 0.0))}


def h2(cells: np.ndarray) -> dict[str, tuple[float | None, bool | None]]:
    """Do the same for style against face subjects, over prompts that are target prompts of neither."""
    neutral = ~np.isin(CATEGORY, (0, 4))
    estimate = contrast(cells, (group(neutral),), (group(KIND == 2), group(KIND == 0, -1.0)), "greater")
    pool = pooled(cells[CATEGORY != 4][:, KIND == 2], cells[CATEGORY != 0][:, KIND == 0], "greater")
    means = cells[neutral].mean(axis=0)
    return {
        "pooled U": (pool.p if pool else None, None),
        "crossed t": (estimate.p, _contains(estimate, 0.0)),
        "subject permutation": (permuted(means[KIND == 2], means[KIND == 0], "greater"), None),
    }


def level(cells: np.ndarray) -> dict[str, tuple[float | None, bool | None]]:
    """Return whether the interval of a mean (faces, non-target prompts) contains the true mean."""
    estimate = contrast(cells, (group(CATEGORY != 0),), (group(KIND == 0),))
    return {"crossed t": (None, _contains(estimate, 0.020))}


def floors(rng: np.random.Generator, seeds: int) -> dict[str, float]:
    """Return the shares of re-seeded cells of one data set above each floor, by name.

    A prompt's cosines are normal, with a standard deviation of its own, around .02. The LPIPS of two images is the
    prompt's level plus an effect of either image and one of the pair, with standard deviations .1, .04 and .03.
    """
    prompts = [f"p{p:03d}" for p in range(200)]
    spread, level = 0.02 * rng.gamma(9, 1 / 9, (200, 1)), rng.normal(0.5, 0.1, (200, 1))
    base, fresh = spread * rng.normal(size=(200, seeds)), spread[:, None] * rng.normal(size=(200, 15, seeds))
    own, other = 0.04 * rng.normal(size=(200, seeds)), 0.04 * rng.normal(size=(200, 15, seeds))
    pairs = np.array(noise_pairs(seeds))
    noise = {
        "e_sem": np.abs(base[:, pairs[:, 0]] - base[:, pairs[:, 1]]),
        "e_per": level + own[:, pairs].sum(axis=2) + 0.03 * rng.normal(size=(200, len(pairs))),
    }
    lpips = level[:, None] + own[:, None] + other + 0.03 * rng.normal(size=fresh.shape)
    means = {"e_sem": np.abs(fresh - base[:, None]).mean(axis=2), "e_per": lpips.mean(axis=2)}
    pairs_frame = pl.DataFrame(
        {"prompt_id": np.repeat(prompts, len(pairs)), **{n: x.ravel() for n, x in noise.items()}}
    )
    shares = {}
    for name, cells in means.items():
        tau = pairs_of(pairs_frame, name).matched(np.arange(200), np.full(200, seeds))
        shares[f"{name} above single pairs"] = float((cells > np.quantile(noise[name], 0.95)).mean())
        shares[f"{name} above matched"] = float((cells > tau[:, None]).mean())
    every = np.repeat(base, 15, axis=0)
    shares["p_sem up to 5 %"] = float((matching_p(every, fresh.reshape(-1, seeds), rng) <= LEVEL).mean())
    reseeded = np.repeat(noise["e_per"], 15, axis=0)
    shares["p_per up to 5 %"] = float((rank_sum_p(lpips.reshape(-1, seeds), reseeded) <= LEVEL).mean())
    return shares


def _contains(estimate: object, truth: float) -> bool:
    low, high = (getattr(estimate, name) for name in ("low", "high"))
    return bool(low <= truth <= high)


def main() -> None:
    """Print rejection rates and coverage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=2_000, help="number of simulated data sets")
    args = parser.parse_args()
    table = Table(title=f"{args.sets} data sets of 200 prompts x 15 subjects; one-sided tests at {LEVEL:.0%}")
    for name in ("question", "subject SD", "shift", "test", "rejects", "95 % interval contains the truth"):
        table.add_column(name, justify="left" if name in ("question", "test") else "right")
    cases = [
        (name, ask, where, shift, sd)
        for name, ask, where in (
            ("H1 people > others under faces", h1, people_under_faces),
            ("H2 style > face", h2, style_cells),
            ("mean of a table", level, style_cells),
        )
        for sd in (SD_SUBJECT, 0.0, 0.006)
        for shift in ((0.0, 0.002, 0.004, 0.008) if ask is not level and sd == SD_SUBJECT else (0.0,))
    ]
    for name, ask, where, shift, sd in cases:
        rng = np.random.default_rng(1)
        answers = [ask(draw(rng, shift, where, sd)) for _ in range(args.sets)]
        for test in answers[0]:
            p_values = [p for p, _ in (answer[test] for answer in answers) if p is not None]
            covered = [h for _, h in (answer[test] for answer in answers) if h is not None]
            rejects = f"{np.mean(np.array(p_values) <= LEVEL):.1%}" if p_values else "–"
            coverage = f"{np.mean(covered):.1%}" if covered and shift == 0 else "–"
            table.add_row(name, f"{sd:.3f}", f"{shift:.3f}", test, rejects, coverage)
    console = Console(width=120)
    console.print(table)
    cells = Table(
        title=f"adapters that only change the seeds, {args.sets // 20} data sets of 200 prompts x 15 adapters"
    )
    cells.add_column("share")
    sizes = (3, 6, 10)
    drawn = []
    for seeds in sizes:
        cells.add_column(f"{seeds} seeds", justify="right")
        rng = np.random.default_rng(2)
        drawn.append([floors(rng, seeds) for _ in range(args.sets // 20)])
    for name in drawn[0][0]:
        cells.add_row(name, *(f"{np.mean([shares[name] for shares in sets]):.1%}" for sets in drawn))
    console.print(cells)


if __name__ == "__main__":
    main()
