"""The statistics against closed forms, scipy's own tests, brute force and published values."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats

from raymap.analysis.hypotheses import holm, hypotheses, pooled
from raymap.analysis.map import measured, with_entanglement
from raymap.analysis.numerics.crossed import Group, contrast, permuted
from raymap.analysis.numerics.exchange import matching_p, sign_flip_p
from raymap.analysis.read import read_map, read_scores
from raymap.analysis.reduce import reduce_run
from raymap.analysis.tables import by_method_and_category, method_order, ranked_prompts
from raymap.report.against import NOT_ESTABLISHED, NOT_TOLD, against_paper
from raymap.store.schema import SHIFTS
from raymap.study.suite import CATEGORIES
from tests.analysis.samples import sample, scores_of, write

ALL = slice(None)


def rows(*members: int, weight: float = 1.0) -> Group:
    return Group(np.array(members), weight)


def test_with_one_subject_the_interval_is_students_over_prompts() -> None:
    x = np.random.default_rng(0).normal(1, 2, (12, 1))
    found, known = contrast(x, (rows(*range(12)),), (rows(0),)), stats.ttest_1samp(x[:, 0], 0)
    assert found.p == pytest.approx(known.pvalue, rel=1e-9)
    assert found.df == pytest.approx(known.df)
    interval = known.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert "single subject" in found.method


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_with_one_subject_two_groups_of_prompts_are_compared_by_welch(alternative: Any) -> None:
    x = np.random.default_rng(1).normal(0, 1, (15, 1))
    x[:5] += 1
    found = contrast(x, (rows(*range(5)), rows(*range(5, 15), weight=-1.0)), (rows(0),), alternative)
    known = stats.ttest_ind(x[:5, 0], x[5:, 0], equal_var=False, alternative=alternative)
    assert found.p == pytest.approx(known.pvalue, rel=1e-9)
    assert found.df == pytest.approx(known.df, rel=1e-9)


def test_the_two_way_variance_is_that_of_the_mean_squares() -> None:
    """Balanced two-way random effects: Var(mean) = (MS_prompts + MS_subjects - MS_residual) / (P S)."""
    rng = np.random.default_rng(2)
    p, s = 20, 6
    x = rng.normal(0, 1, (p, 1)) + rng.normal(0, 0.7, (1, s)) + rng.normal(0, 0.4, (p, s))
    residual = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    ms_p = s * ((x.mean(1) - x.mean()) ** 2).sum() / (p - 1)
    ms_s = p * ((x.mean(0) - x.mean()) ** 2).sum() / (s - 1)
    ms_e = (residual**2).sum() / ((p - 1) * (s - 1))
    variance = (ms_p + ms_s - ms_e) / (p * s)
    found = contrast(x, (rows(*range(p)),), (rows(*range(s)),))
    assert found.df is not None
    assert found.low is not None
    assert found.value == pytest.approx(x.mean())
    reach = stats.t.ppf(0.975, found.df) * variance**0.5
    assert found.low == pytest.approx(x.mean() - reach, rel=1e-9)
    df = variance**2 / ((ms_p / (p * s)) ** 2 / (p - 1) + (ms_s / (p * s)) ** 2 / (s - 1))
    assert found.df == pytest.approx(df, rel=1e-9)


def test_an_incomplete_prompt_is_left_out_and_not_counted() -> None:
    x = np.random.default_rng(3).normal(0, 1, (10, 3))
    x[4, 1] = np.nan
    found = contrast(x, (rows(*range(10)),), (rows(0, 1, 2),))
    whole = contrast(np.delete(x, 4, axis=0), (rows(*range(9)),), (rows(0, 1, 2),))
    assert (found.value, found.low, found.prompts) == (whole.value, whole.low, 9)


def test_what_has_no_spread_says_so() -> None:
    assert "no spread" in (contrast(np.ones((1, 1)), (rows(0),), (rows(0),)).reason or "")
    same = contrast(np.zeros((4, 3)), (rows(0, 1, 2, 3),), (rows(0, 1, 2),))
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, None)
    assert "equal" in (same.reason or "")
    assert contrast(np.full((3, 2), np.nan), (rows(0, 1, 2),), (rows(0, 1),)).value is None


def test_subjects_are_permuted_exactly() -> None:
    one, other = np.array([3.0, 4.5, 6.1, 2.2, 5.0]), np.array([1.0, 2.5, 3.3, 2.0, 2.9])
    both = np.concatenate([one, other])
    splits = [both[list(c)].mean() - np.delete(both, c).mean() for c in itertools.combinations(range(10), 5)]
    expected = np.mean(np.array(splits) >= one.mean() - other.mean() - 1e-12)
    assert permuted(one, other, "greater") == pytest.approx(expected)
    assert len(splits) == 252


def test_the_pooled_effect_size_is_the_share_of_larger_pairs() -> None:
    x, y = np.array([[1.0, 3.0, 3.0], [5.0, np.nan, 2.0]]), np.array([0.0, 3.0, 4.0])
    found = pooled(x, y, "greater")
    assert found is not None
    pairs = [(a > b) + 0.5 * (a == b) for a in x[~np.isnan(x)] for b in y]
    assert found.common_language == pytest.approx(np.mean(pairs))


def test_holm_gives_the_published_values() -> None:
    """The example of scipy's and statsmodels' tests for multiple comparisons."""
    p = [0.005, 0.009, 0.019, 0.022, 0.051, 0.101, 0.361, 0.387]
    assert holm([*p, None])[:8] == pytest.approx([0.040, 0.063, 0.114, 0.114, 0.204, 0.303, 0.722, 0.722], abs=1e-12)


def test_the_matching_test_counts_all_matchings() -> None:
    rng = np.random.default_rng(4)
    base, adapted = rng.normal(0, 1, (5, 3)), rng.normal(0.5, 1, (5, 3))
    for row, p in enumerate(matching_p(base, adapted, rng)):
        values = np.concatenate([base[row], adapted[row]])
        seen = []
        for order in itertools.permutations(range(6)):
            pairs = [order[k : k + 2] for k in (0, 2, 4)]
            seen.append(np.mean([abs(values[a] - values[b]) for a, b in pairs]))
        observed = np.abs(base[row] - adapted[row]).mean()
        assert p == pytest.approx(np.mean(np.array(seen) >= observed - 1e-12))


def test_sign_flips_are_scipys() -> None:
    d = np.random.default_rng(5).normal(0.3, 1, (3, 7))
    for row, p in enumerate(sign_flip_p(d, np.random.default_rng(0))):
        known = stats.permutation_test(
            (d[row],), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
        )
        assert p == pytest.approx(known.pvalue)


def test_table_1_is_recomputed_from_the_scores(tmp_path: Path) -> None:
    scores = sample()
    reduce_run(write(tmp_path, scores))
    own = {"face": "people", "object": "objects", "style": "styles"}
    for row in by_method_and_category(with_entanglement(measured(read_map(tmp_path)))):
        category = row["subject_category"]
        part = scores.filter(
            pl.col("method") == row["method"],
            pl.col("subject_category") == category,
            pl.col("prompt_category") != own[category],
        )
        by_subject = part.group_by("subject").agg(
            (pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base").cast(pl.Float64)).abs().mean()
        )["clip_adapted"]
        assert row["e_sem"]["value"] == pytest.approx(by_subject.mean(), rel=1e-9, abs=1e-15)
        assert row["e_sem_std"] == pytest.approx(by_subject.std(), rel=1e-6, abs=1e-15)
        assert row["e_sem"]["n"] == 20


def test_the_order_of_methods_is_tested_within_subjects(tmp_path: Path) -> None:
    reduce_run(write(tmp_path, sample()))
    found = method_order(with_entanglement(measured(read_map(tmp_path))))
    assert len(found) == 2 * 2 * 3
    assert all(row["direction_holds"] for row in found)
    assert all(row["p"] is not None and row["p"] < 0.05 for row in found if row["measure"] == "e_sem")


def test_hypotheses_find_what_is_planted_and_only_that() -> None:
    rng = np.random.default_rng(7)
    cells = []
    for p in range(60):
        for s in range(15):
            category = ("face", "object", "style")[s // 5]
            cells.append(
                {
                    "prompt_id": f"p{p:03d}", "prompt_category": CATEGORIES[p % 6], "adapter": f"s{s}-lora",
                    "method": "lora", "subject": f"s{s:02d}", "subject_category": category, "target": False,
                    "e_sem": 0.02 + 0.01 * (category == "style") + rng.normal(0, 0.002),
                }
            )  # fmt: skip
    found: dict[str, Any] = {row["hypothesis"]: row for row in hypotheses(pl.DataFrame(cells))}
    assert found["H2"]["p"] < 1e-4
    assert found["H2"]["p_subject_permutation"] == pytest.approx(1 / 252)
    assert found["H2"]["difference"]["value"] == pytest.approx(0.01, abs=0.001)
    assert found["H2"]["pooled"]["common_language"] > 0.99
    assert found["H1"]["p"] > 0.05
    assert all(found[f"H2 {category}"]["q_bh"] < 0.01 for category in CATEGORIES)
    assert found["H3 object above face"]["p_holm"] >= found["H3 object above face"]["p"]


def test_a_shift_is_found_and_re_seeding_is_none(tmp_path: Path) -> None:
    """Of 60 prompts, an adapter that draws afresh shifts none; one that lowers the cosine by .2 shifts all."""
    rng = np.random.default_rng(8)
    base = rng.normal(0.25, 0.02, (60, 10))
    values = np.stack([rng.normal(0.25, 0.02, (60, 10)), base - 0.2, base], axis=1)
    lpips = np.stack([rng.uniform(0.3, 0.7, (60, 10)), np.full((60, 10), 0.9), np.zeros((60, 10))], axis=1)
    kinds = [("lora", "afresh", "face"), ("lora", "ruined", "face"), ("lora", "same", "face")]
    scores = scores_of(values, base, lpips, kinds)
    folder = write(tmp_path, scores, pairs=9)
    statistics = reduce_run(folder)
    assert pa.ipc.open_file(folder / "shifts.arrow").schema.names == SHIFTS.names
    tests = pl.read_ipc(folder / "shifts.arrow")
    p = {name: tests.filter(pl.col("adapter") == f"{name}-lora") for name in ("afresh", "ruined", "same")}
    assert (p["afresh"]["p_sem"].to_numpy() <= 0.05).mean() < 0.15
    assert p["afresh"]["p_sem"].to_numpy().mean() == pytest.approx(0.5, abs=0.12)
    assert (p["ruined"]["q_signed"] <= 0.05).all()
    assert (p["ruined"]["q_sem"] <= 0.05).all()
    assert (p["ruined"]["q_per"] <= 0.05).all()
    assert (p["same"]["p_signed"] == 1).all()
    counts = {row["adapter"]: row for row in statistics["shifts"]}
    assert counts["ruined-lora"]["shifted_sem"] == counts["ruined-lora"]["tested_sem"] == 50
    assert counts["same-lora"]["shifted_signed"] == 0


def test_an_adapters_false_discoveries_are_counted_without_the_others(tmp_path: Path) -> None:
    """Beside nine adapters that shift all they can, one that draws afresh keeps its own bar; so do target prompts."""
    rng = np.random.default_rng(3)
    base = rng.normal(0.25, 0.02, (60, 10))
    values = np.stack([rng.normal(0.25, 0.02, (60, 10)), *[base - 0.2] * 9], axis=1)
    lpips = np.stack([rng.uniform(0.3, 0.7, (60, 10)), *[np.full((60, 10), 0.9)] * 9], axis=1)
    kinds = [("lora", "afresh", "face"), *(("lora", f"ruined-{k}", "face") for k in range(9))]
    folder = write(tmp_path, scores_of(values, base, lpips, kinds), pairs=9)
    counts: dict[str, Any] = {row["adapter"]: row for row in reduce_run(folder)["shifts"]}
    tests = pl.read_ipc(folder / "shifts.arrow").join(
        pl.read_ipc(folder / "map.arrow").select("prompt_id", "adapter", "target"), on=["prompt_id", "adapter"]
    )
    for name in ("sem", "per", "signed"):
        over_all = stats.false_discovery_control(tests[f"p_{name}"].to_numpy())
        assert (over_all[(tests["adapter"] == "afresh-lora").to_numpy()] <= 0.05).any(), "or the test cannot fail"
        assert counts["afresh-lora"][f"shifted_{name}"] == 0
        for part in tests.partition_by("adapter", "target"):
            own = stats.false_discovery_control(part[f"p_{name}"].to_numpy())
            assert part[f"q_{name}"].to_numpy() == pytest.approx(own)


def test_fragile_prompts_that_stand_out_stay_in_the_list(tmp_path: Path) -> None:
    scores = sample(prompts=48).with_columns(
        clip_adapted=pl.when(pl.col("prompt_id") == "p003", pl.col("method") != "textual_inversion")
        .then(pl.col("clip_base") - 0.5)
        .otherwise(pl.col("clip_adapted"))
    )
    reduce_run(write(tmp_path, scores))
    worst = ranked_prompts(measured(read_map(tmp_path)), descending=True)
    assert worst[0]["prompt_id"] == "p003"
    assert worst[0]["stability"] == 1.0
    assert all(row["stability"] is not None and 0 < row["stability"] <= 1 for row in worst)


@pytest.mark.parametrize(
    "ragged",
    [
        "one subject",
        "one seed",
        "constant",
        "missing cells",
        "nan rows",
        "one prompt",
        "only target prompts",
        "a prompt with target cells only",
    ],
)
def test_ragged_scores_give_a_statistic_or_a_named_reason(tmp_path: Path, ragged: str) -> None:
    scores = sample()
    if ragged == "one subject":
        scores = scores.filter(pl.col("subject") == "face-0")
    elif ragged == "one seed":
        scores = scores.filter(pl.col("seed") == 0)
    elif ragged == "constant":
        scores = scores.with_columns(clip_adapted=pl.col("clip_base"), lpips=pl.lit(0, pl.Float32))
    elif ragged == "missing cells":
        scores = scores.filter(~((pl.col("adapter") == "face-0-lora") & pl.col("prompt_id").is_in(["p001", "p002"])))
    elif ragged == "nan rows":
        bad = (pl.col("adapter") == "face-0-lora") & (pl.col("prompt_id") == "p001") & (pl.col("seed") < 2)
        scores = scores.with_columns(lpips=pl.when(bad).then(float("nan")).otherwise(pl.col("lpips")))
    elif ragged == "a prompt with target cells only":
        scores = scores.filter((pl.col("prompt_id") != "p000") | (pl.col("subject_category") == "face"))
    elif ragged == "one prompt":
        scores = scores.filter(pl.col("prompt_id") == "p001")
    else:
        scores = scores.filter(pl.col("subject") == "face-0", pl.col("prompt_category") == "people")
    statistics = reduce_run(write(tmp_path, scores))
    assert "NaN" not in json.dumps(statistics)
    cells = read_map(tmp_path)
    full = cells["n_seeds"].max()
    short = cells.filter(pl.col("n_seeds") < full)
    assert sum(entry["cells"] for entry in statistics["incomplete"]) == short.height
    if ragged == "missing cells":
        assert short["n_seeds"].to_list() == [0, 0]
        assert short["e_sem"].null_count() == 2
    if ragged == "nan rows":
        assert short["n_seeds"].to_list() == [2]
    for entry in statistics["hypotheses"]:
        assert (entry["p"] is not None) or entry["reason"], entry
    assert statistics["identity_control"]["present"] is False
    if ragged == "a prompt with target cells only":
        assert "p000" not in {row["prompt_id"] for row in ranked_prompts(measured(cells), descending=False)}


def test_scores_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    from raymap.errors import InputError

    scores = sample()
    twice = pl.concat([scores, scores.head(1).with_columns(lpips=pl.lit(0.5, pl.Float32))])
    with pytest.raises(InputError, match="two different rows"):
        read_scores(write(tmp_path, twice))


def ordered(statistics: Any) -> list[str]:
    """Return the verdicts on the order of LoRA and Custom Diffusion."""
    return [r["verdict"] for r in against_paper(statistics, {}) if "lora < custom_diffusion" in r["what"]]


def narrowed(statistics: Any) -> Any:
    """Give the differences of methods intervals that hold little but their values."""
    for entry in statistics["method_order"]:
        value = entry["difference"]["value"]
        entry["difference"] |= {"low": value - 1e-9, "high": value + 1e-9}
    return statistics


def test_beside_the_paper_each_figure_agrees_differs_or_says_why_not(tmp_path: Path) -> None:
    statistics = reduce_run(write(tmp_path, sample()))
    rows = against_paper(statistics, {})
    assert {row["verdict"] for row in rows} <= {"agrees", "differs", "not comparable", NOT_ESTABLISHED, NOT_TOLD}
    assert all(row["why"] for row in rows if row["verdict"] == "not comparable")
    inversion = [row for row in rows if "textual_inversion" in row["what"]]
    assert inversion
    assert {row["verdict"] for row in inversion} == {"not comparable"}
    # With two subjects of a category, some of the intervals hold 0.
    low = [
        e["difference"]["low"] for e in statistics["method_order"] if e["measure"] == "e" and "lora < c" in e["claim"]
    ]
    assert ordered(statistics) == ["agrees" if (end or 0) > 0 else NOT_TOLD for end in low]
    assert NOT_TOLD in ordered(statistics)
    assert ordered(narrowed(statistics)) == ["agrees"] * 3
    assert next(row for row in rows if row["what"].startswith("tau_sem"))["paper"] == "0.044"
    swapped = {"lora": "custom_diffusion", "custom_diffusion": "lora", "textual_inversion": "textual_inversion"}
    scores = sample().with_columns(
        method=pl.col("method").replace_strict(swapped),
        adapter=pl.col("subject") + "-" + pl.col("method").replace_strict(swapped),
    )
    assert ordered(narrowed(reduce_run(write(tmp_path / "turned", scores)))) == ["differs"] * 3


@pytest.mark.parametrize(
    ("value", "reach", "p_holm", "verdict"),
    [
        (0.01, 0.005, 0.049, "agrees"),
        (0.01, 0.005, 0.05, NOT_ESTABLISHED),
        (0.01, 0.02, 0.75, NOT_TOLD),
        (-0.01, 0.005, 1.0, "differs"),
        (-0.01, 0.02, 0.72, NOT_TOLD),
    ],
)
def test_what_the_paper_confirms_agrees_where_it_is_established_here(
    tmp_path: Path, value: float, reach: float, p_holm: float, verdict: str
) -> None:
    """The paper confirms H2 and states H3's order without a test; the interval has to tell the direction."""
    statistics = reduce_run(write(tmp_path, sample()))
    for entry in statistics["hypotheses"]:
        entry["difference"] |= {"value": value, "low": value - reach, "high": value + reach}
        entry["p"], entry["p_holm"] = p_holm / 4, p_holm
    found = {row["what"].split(":")[0]: row for row in against_paper(statistics, {})}
    assert found["H2"]["verdict"] == verdict
    assert f"Holm {p_holm:.3g}" in (found["H2"]["ours"] or "")
    told = "agrees" if value > 0 else "differs"
    assert found["H3 object above face"]["verdict"] == (NOT_TOLD if reach > abs(value) else told)
