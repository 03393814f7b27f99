"""Power: variance components, closed forms and what simulated runs really detect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from raymap.analysis.map import entanglement_map, noise_floor
from raymap.analysis.numerics.crossed import Group, contrast
from raymap.analysis.power import (
    ALPHA,
    POWER,
    Components,
    Sizes,
    components,
    detectable,
    expected_variance,
    power,
    seed_variance,
    seeds_needed,
)
from raymap.analysis.read import read_noise, stream_scores
from raymap.analysis.reduce import reduce_run
from tests.analysis.samples import sample, write

TRUE = Components(0.010**2, 0.003**2, 0.006**2, 0.012**2)
SEEDS = 5


def draw(rng: np.random.Generator, p: int, s: int) -> np.ndarray:
    """Return cells (P, S) of the model, without a shift; of two subjects, their difference is fixed: 0."""
    prompt, subject = rng.normal(0, TRUE.prompt**0.5, (p, 1)), rng.normal(0, TRUE.subject**0.5, (1, s))
    return np.asarray(0.02 + prompt + (subject if s > 2 else 0.0) + rng.normal(0, TRUE.residual(SEEDS) ** 0.5, (p, s)))


def test_components_are_those_of_the_mean_squares() -> None:
    """Without categories: the analysis of variance by hand."""
    x = draw(np.random.default_rng(0), 30, 8)
    residual = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    ms_e = (residual**2).sum() / (29 * 7)
    ms_p, ms_s = 8 * x.mean(1).var(ddof=1), 30 * x.mean(0).var(ddof=1)
    found = components(x, np.full(30, "a"), np.full(8, "b"), 0.5 * ms_e, 2)
    assert found is not None
    assert found.prompt == pytest.approx((ms_p - ms_e) / 8)
    assert found.subject == pytest.approx((ms_s - ms_e) / 30)
    assert found.cell == pytest.approx(0.75 * ms_e)


def test_components_are_unbiased_whatever_the_means_of_categories() -> None:
    rng = np.random.default_rng(1)
    prompts, subjects = np.repeat(["a", "b", "c"], 12), np.repeat(["f", "o"], 6)
    means = rng.normal(0, 1, (3, 2))[np.repeat(np.arange(3), 12)][:, np.repeat(np.arange(2), 6)]
    found = [components(draw(rng, 36, 12) + means, prompts, subjects, TRUE.seed, SEEDS) for _ in range(400)]
    for name in ("prompt", "subject", "cell"):
        values = [getattr(part, name) for part in found if part is not None]
        assert len(values) == 400
        assert np.mean(values) == pytest.approx(getattr(TRUE, name), rel=0.06), name


def test_the_variance_between_seeds_is_that_within_cells(tmp_path: Path) -> None:
    rows = stream_scores(write(tmp_path, sample(prompts=6)))
    shift = (pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base").cast(pl.Float64)).abs()
    values = rows.select("prompt_id", "subject", "adapter", "seed", shift=shift)
    within = values.group_by("prompt_id", "adapter").agg(pl.col("shift").var())["shift"].to_numpy()
    variance, df = seed_variance(rows, "adapter")
    assert variance == pytest.approx(within.mean(), rel=1e-9)
    assert df == len(within) * 3
    averaged = values.group_by("prompt_id", "subject", "seed").agg(pl.col("shift").mean())
    within = averaged.group_by("prompt_id", "subject").agg(pl.col("shift").var())["shift"].to_numpy()
    assert seed_variance(rows, "subject")[0] == pytest.approx(within.mean(), rel=1e-9)
    # Of a seed that one method lacks, no mean over methods is taken.
    lacking = rows.filter(~((pl.col("adapter") == "face-0-lora") & (pl.col("seed") == 1)))
    complete = averaged.filter(~((pl.col("subject") == "face-0") & (pl.col("seed") == 1)))
    parts = complete.group_by("prompt_id", "subject").agg(pl.col("shift").var(), n=pl.len() - 1)
    squares, free = (parts["shift"] * parts["n"]).to_numpy().sum(), parts["n"].to_numpy().sum()
    variance, df = seed_variance(lacking, "subject")
    assert variance == pytest.approx(squares / free, rel=1e-9)
    assert df == free


def test_a_detectable_effect_exceeds_the_critical_value_that_often() -> None:
    for df in (2.0, 7.5, 40.0):
        effect = detectable(0.25, df)
        assert stats.nct.sf(stats.t.isf(ALPHA, df), df, effect / 0.5) == pytest.approx(POWER, abs=1e-6)
    # With many degrees of freedom: (z_.95 + z_.80) standard errors.
    assert detectable(1.0, 1e6) == pytest.approx(stats.norm.ppf(0.95) + stats.norm.ppf(0.8), rel=1e-4)


def test_the_expected_variance_is_the_closed_form() -> None:
    left = TRUE.residual(SEEDS)
    found, _ = expected_variance(TRUE, ((1.0, 33), (-1.0, 167)), ((1.0, 5),), SEEDS)
    assert found == pytest.approx((TRUE.prompt + left / 5) * (1 / 33 + 1 / 167))
    found, _ = expected_variance(TRUE, ((1.0, 134),), ((1.0, 5), (-1.0, 4)), SEEDS)
    assert found == pytest.approx((TRUE.subject + left / 134) * (1 / 5 + 1 / 4))
    found, df = expected_variance(TRUE, ((1.0, 134),), ((1.0, 1), (-1.0, 1)), SEEDS)
    assert found == pytest.approx(2 * left / 134)
    assert df == pytest.approx(133)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        pytest.param(((1.0, 10), (-1.0, 50)), ((1.0, 5),), id="H1"),
        pytest.param(((1.0, 40),), ((1.0, 6), (-1.0, 6)), id="H2"),
        pytest.param(((1.0, 40),), ((1.0, 1), (-1.0, 1)), id="two adapters"),
    ],
)
def test_simulated_runs_detect_it_in_four_of_five(rows: Sizes, columns: Sizes) -> None:
    rng = np.random.default_rng(2)
    effect = detectable(*expected_variance(TRUE, rows, columns, SEEDS))
    groups = [
        [Group(np.arange(n) + sum(m for _, m in side[:k]), weight) for k, (weight, n) in enumerate(side)]
        for side in (rows, columns)
    ]
    p, s = (sum(n for _, n in side) for side in (rows, columns))
    shift = np.zeros((p, s))
    shift[np.ix_(groups[0][0].members, groups[1][0].members)] = effect
    found = [contrast(draw(rng, p, s) + shift, groups[0], groups[1], "greater").p for _ in range(1_000)]
    share = np.mean([value is not None and value <= ALPHA for value in found])
    assert share == pytest.approx(POWER, abs=0.05)


def test_the_seeds_needed_are_the_fewest_that_detect_the_effect() -> None:
    rows, columns = ((1.0, 40),), ((1.0, 1), (-1.0, 1))
    for wanted in (0.005, 0.004):
        needed = seeds_needed(TRUE, rows, columns, wanted)
        assert needed is not None
        assert needed > 2
        assert detectable(*expected_variance(TRUE, rows, columns, needed)) <= wanted
        assert detectable(*expected_variance(TRUE, rows, columns, needed - 1)) > wanted
    assert seeds_needed(TRUE, rows, columns, 1.0) == 2
    assert seeds_needed(TRUE, rows, columns, 1e-5) is None


def test_a_run_says_what_it_can_detect(tmp_path: Path) -> None:
    folder = write(tmp_path, sample())
    claims: dict[str, Any] = {row["claim"]: row for row in reduce_run(folder)["power"]["claims"]}
    assert (claims["H1"]["prompts"], claims["H1"]["subjects"]) == ([4, 20], [2])
    assert (claims["H2"]["prompts"], claims["H2"]["subjects"]) == ([16], [2, 2])
    single = claims["an adapter's mean E_sem above another's"]
    assert single["detectable"] == pytest.approx(detectable(single["se"] ** 2, single["df"]))
    assert single["detectable_at_any_seeds"] < single["detectable"]
    scores = stream_scores(folder)
    one = scores.filter(pl.col("seed") == 0)
    cells = entanglement_map(one, noise_floor(read_noise(folder)), {})
    alone = power(cells, one, 0.04)
    assert alone["components"]["subjects"]["sd_seed"] is None
    assert all("one seed" in (row["reason"] or "") for row in alone["claims"])
    assert all(row["seeds_needed"] is None for row in alone["claims"])
