"""The noise floor, the one matched to means over seeds, and what identity controls say of rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from raymap.analysis.floor import RESAMPLES, pairs_of, percentile_interval
from raymap.analysis.read import read_map
from raymap.analysis.reduce import reduce_run
from tests.analysis.samples import control, sample, write


def noise(values: list[np.ndarray]) -> pl.DataFrame:
    """Return seed pairs, one array per prompt."""
    return pl.DataFrame(
        {
            "prompt_id": [f"p{p}" for p, part in enumerate(values) for _ in part],
            "e_sem": np.concatenate(values),
            "e_per": np.concatenate(values),
        }
    )


def test_with_one_prompt_the_matched_threshold_is_students_prediction_limit() -> None:
    """The limit L for a mean of K more: (mean of K - m) / (s √(1/K + 1/n)) is Student's t, so P(beyond L) is 5 %."""
    x = np.array([0.31, 0.52, 0.44, 0.38])
    tau = pairs_of(noise([x]), "e_per").matched(np.array([0]), np.array([10]))[0]
    quotient = (tau - x.mean()) / (x.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4))
    assert stats.t.sf(quotient, 3) == pytest.approx(0.05)


@pytest.mark.parametrize("half_normal", [False, True])
def test_re_seeding_exceeds_the_matched_threshold_in_five_of_a_hundred(half_normal: bool) -> None:
    """Prompts of different levels, three pairs each; a cell is a mean of ten more pairs of its prompt."""
    rng = np.random.default_rng(0)

    def pairs(n: int) -> np.ndarray:
        if half_normal:  # |difference of two cosines|
            return np.abs(rng.normal(0, 0.028, (4_000, n)))
        return np.asarray(level + rng.normal(0, 0.05, (4_000, n)))

    level = rng.uniform(0.3, 0.6, (4_000, 1))
    held = pairs_of(noise(list(pairs(3))), "e_per")
    order = [int(name[1:]) for name in held.prompts]
    tau = held.matched(np.arange(4_000), np.full(4_000, 10))
    above = pairs(10).mean(axis=1)[order] > tau
    assert above.mean() == pytest.approx(0.05, abs=0.02)
    # Single pairs' percentile is no floor for means: hardly any mean reaches it.
    assert (pairs(10).mean(axis=1) > np.quantile(pairs(3), 0.95)).mean() < 0.03


@pytest.mark.parametrize("ragged", [False, True])
def test_the_interval_of_the_percentile_is_scipys_bootstrap_of_prompts(ragged: bool) -> None:
    rng = np.random.default_rng(1)
    values = [rng.uniform(0, 1, 1 + p % 4 if ragged else 3) for p in range(9)]

    def percentile(rows: np.ndarray) -> float:
        return float(np.quantile(np.concatenate([values[int(k)] for k in rows]), 0.95))

    known = stats.bootstrap(
        (np.arange(9),), percentile, vectorized=False, n_resamples=RESAMPLES, confidence_level=0.95,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert percentile_interval(pairs_of(noise(values), "e_sem")) == pytest.approx((known.low, known.high), rel=1e-12)


def test_cells_are_held_against_their_own_prompts_threshold(tmp_path: Path) -> None:
    folder = write(tmp_path, sample(prompts=12).filter((pl.col("seed") > 0) | (pl.col("adapter") != "face-0-lora")))
    statistics = reduce_run(folder)
    rows = pl.read_ipc((folder / "noise.arrow").read_bytes())
    pooled = np.sqrt(np.mean([part["e_sem"].cast(pl.Float64).var() for part in rows.partition_by("prompt_id")]))
    tests = pl.read_ipc((folder / "shifts.arrow").read_bytes())
    cells = read_map(folder).join(tests, on=["prompt_id", "adapter"])
    assert set(cells["n_seeds"]) == {3, 4}
    for row in cells.iter_rows(named=True):
        pairs = rows.filter(pl.col("prompt_id") == row["prompt_id"])["e_sem"].cast(pl.Float64).to_numpy()
        tau = pairs.mean() + stats.t.ppf(0.95, 24) * pooled * np.sqrt(1 / row["n_seeds"] + 1 / 3)
        assert row["matched_tau_sem"] == pytest.approx(tau, rel=1e-9)
        assert row["above_matched_sem"] == (row["e_sem"] > tau)
    for adapter in statistics["adapters"]:
        own = cells.filter(pl.col("adapter") == adapter["adapter"], ~pl.col("target"))
        assert adapter["above_matched_sem"] == own["above_matched_sem"].sum()
        assert adapter["above_matched_per"] == (own["e_per"] > own["matched_tau_per"]).sum()
    assert statistics["noise_floor"]["matched"]["e_sem"]["sd_pair"] == pytest.approx(pooled, rel=1e-9)


def test_a_control_that_was_not_drawn_controls_nothing(tmp_path: Path) -> None:
    scores = control(sample(prompts=12), 0.0)
    proof = scores.with_columns(drawn=pl.col("drawn") & (pl.col("method") != "identity"))
    found = reduce_run(write(tmp_path, proof))["identity_control"]
    assert (found["present"], found["exact"], found["cells"]) == (False, None, 0)
    assert found["proved"] == scores.filter(pl.col("method") == "identity")["adapter"].unique().sort().to_list()


@pytest.mark.parametrize("rounding", [0.0, 0.01])
def test_the_identity_controls_largest_value_is_the_numerical_floor(tmp_path: Path, rounding: float) -> None:
    folder = write(tmp_path, control(sample(prompts=12), rounding))
    statistics = reduce_run(folder)
    found, cells = statistics["identity_control"], read_map(folder)
    largest = cells.filter(pl.col("method") == "identity")["e_sem"].max()
    assert found["max_e_sem"] == largest == pytest.approx(rounding, rel=1e-5)
    assert found["exact"] == (rounding == 0)
    assert found["consequence"].startswith("exactly 0" if rounding == 0 else "not 0")
    others = cells.filter(pl.col("method") != "identity")
    below = others.filter(pl.col("e_sem") <= largest)
    assert found["below_e_sem"] == below.height > 0
    assert found["below_e_per"] == (others["e_per"] == 0).sum()
    for adapter in statistics["adapters"]:
        own = below.filter(pl.col("adapter") == adapter["adapter"], ~pl.col("target"))
        assert adapter["below_numerical_sem"] == own.height
    inversion = [a["below_numerical_sem"] for a in statistics["adapters"] if a["method"] == "textual_inversion"]
    assert set(inversion) == {10}
