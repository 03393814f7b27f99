"""The tests of each prompt against its own margin, recomputed with scipy and held against planted changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from raymap.analysis.changes import SHARED, change_tests
from raymap.analysis.read import read_noise, stream_scores
from raymap.testing.scores import write_scores
from tests.analysis.samples import sample, write


def cells_of(folder: Path) -> pl.DataFrame:
    return change_tests(stream_scores(folder), read_noise(folder))


def test_one_prompt_shares_nothing_so_that_scipy_s_tests_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    shift, lpips = rng.normal(-0.05, 0.02, (1, 1, 6)), rng.normal(0.5, 0.05, (1, 1, 6))
    write_scores(tmp_path, shift, lpips)
    row = cells_of(tmp_path).row(0, named=True)
    scores = stream_scores(tmp_path)
    base = scores["clip_base"].cast(pl.Float64).to_numpy()
    d = scores["clip_adapted"].cast(pl.Float64).to_numpy() - base
    x, y = scores["lpips"].cast(pl.Float64).to_numpy(), read_noise(tmp_path)["e_per"].cast(pl.Float64).to_numpy()
    margin = base.std(ddof=1)
    assert row["margin"] == pytest.approx(margin)
    assert row["p_changed"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    error, df = np.sqrt(d.var(ddof=1) / 6), 5
    size = abs(d.mean())
    assert row["p_score"] == pytest.approx(stats.t.sf([(size - margin) / error, (size + margin) / error], df).sum())
    assert row["p_score_within"] == pytest.approx(stats.t.sf((margin - size) / error, df))
    assert row["p_not_fallen"] == pytest.approx(stats.t.sf((d.mean() + margin) / error, df))
    assert row["image_margin"] == pytest.approx(y.mean() + 2 * y.std(ddof=1))
    independent = 3 / (1 + 2 * SHARED)  # each of the three pairs (0, 1), (0, 2), (1, 2) shares a seed with two others
    floor = y.var(ddof=1) / independent
    error = np.sqrt(x.var(ddof=1) / 6 + floor)
    df = error**4 / ((x.var(ddof=1) / 6) ** 2 / 5 + floor**2 / 2)
    image = stats.t.sf((x.mean() - row["image_margin"]) / error, df)
    assert row["p_image"] == pytest.approx(image)
    assert row["p_image_within"] == pytest.approx(1 - image)
    assert row["p_shifted"] == pytest.approx(min(1, 2 * min(row["p_score"], row["p_image"])))


def test_four_seeds_name_what_fell_and_what_stayed(tmp_path: Path) -> None:
    """Twelve prompts, whose base scores spread by about .03: three fall by .3, the others do not move."""
    rng = np.random.default_rng(3)
    shift, lpips = rng.normal(0, 0.003, (12, 1, 4)), rng.normal(0.2, 0.01, (12, 1, 4))
    shift[:3] -= 0.3
    write_scores(tmp_path, shift, lpips)
    cells = cells_of(tmp_path)
    assert cells.filter(pl.col("q_shifted") <= 0.05)["prompt_id"].to_list() == ["p000", "p001", "p002"]
    assert cells.filter(pl.col("q_unchanged") <= 0.05)["prompt_id"].len() >= 8
    assert cells.filter(pl.col("prompt_id") == "p000")["systematic"][0] == pytest.approx(0.09, rel=0.05)


def test_images_that_are_further_than_another_seed_s_are_a_shift_although_no_score_moves(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    shift, lpips = rng.normal(0, 0.003, (12, 1, 4)), rng.normal(0.2, 0.01, (12, 1, 4))
    lpips[5] += 0.6
    write_scores(tmp_path, shift, lpips)
    cells = cells_of(tmp_path)
    assert cells.filter(pl.col("q_shifted") <= 0.05)["prompt_id"].to_list() == ["p005"]


def test_what_is_the_base_by_proof_is_unchanged_and_borrows_nothing_to_others(tmp_path: Path) -> None:
    scores = sample(prompts=12, seeds=4)
    proof = pl.col("method") == "textual_inversion"
    scores = scores.with_columns(drawn=~proof, clip_adapted=pl.when(proof).then("clip_base").otherwise("clip_adapted"))
    write(tmp_path, scores)
    cells = cells_of(tmp_path)
    of_proof = cells.filter(~pl.col("drawn"))
    assert of_proof.height == 12 * 6
    assert set(of_proof["p_unchanged"]) == {0.0}
    assert set(of_proof["p_shifted"]) == {1.0}
    assert of_proof["signed_sd"].null_count() == of_proof.height


def test_two_seeds_know_no_spread_of_pairs_and_one_knows_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for k in (1, 2):
        write_scores(tmp_path / str(k), rng.normal(-0.3, 0.01, (6, 1, k)), rng.normal(0.2, 0.01, (6, 1, k)))
    assert cells_of(tmp_path / "1")["p_shifted"].null_count() == 6
    two = cells_of(tmp_path / "2")
    assert two["p_image"].null_count() == two["p_unchanged"].null_count() == 6
    assert two["p_shifted"].null_count() == 0
