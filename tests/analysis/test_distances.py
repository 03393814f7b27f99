"""Distances between distributions: right numbers, no bias from pairing, honest intervals, no silent answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from scipy import stats

from raymap.analysis.numerics.distances import (
    cmmd,
    distances_by_category,
    fid,
    gaussian_kernel,
    kid,
    polynomial_kernel,
)
from tests.analysis.rows import Draw, draw, measure

ROW_LEVEL = [pytest.param(kid, polynomial_kernel, id="kid"), pytest.param(cmmd, gaussian_kernel, id="cmmd")]
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def pair(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(seed)
    return rng.randn(n, d), rng.randn(n, d)


def exact_gaussian(rng: np.random.Generator, n: int, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return n rows whose sample mean is `mean` and whose covariance over n - 1 is root' root, both exactly."""
    z = rng.normal(size=(n, len(mean)))
    z = np.linalg.qr(z - z.mean(0))[0] * np.sqrt(n - 1)
    return np.asarray(z @ root + mean)


def test_fid_of_gaussians_with_these_very_moments_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    a, b = rng.uniform(0.1, 3, (2, 6))
    means = rng.normal(size=(2, 6))
    base = exact_gaussian(rng, 50, means[0], np.diag(a) @ rotation)
    adapted = exact_gaussian(rng, 70, means[1], np.diag(b) @ rotation)
    assert fid(base, adapted) == pytest.approx(((means[0] - means[1]) ** 2).sum() + ((a - b) ** 2).sum(), rel=1e-12)


def test_fid_agrees_with_the_matrix_square_root_of_scipy() -> None:
    base, adapted = pair(200, 20, 1)
    adapted = adapted @ np.linspace(0.5, 1.5, 400).reshape(20, 20) / 10 + adapted
    s1, s2 = np.cov(base.T), np.cov(adapted.T)
    root = scipy.linalg.sqrtm(s1 @ s2)
    expected = ((base.mean(0) - adapted.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * root.real)
    assert fid(base, adapted) == pytest.approx(expected, rel=1e-9)


def test_fid_of_fewer_rows_than_dimensions_is_that_of_the_subspace_they_lie_in() -> None:
    base, adapted = pair(20, 6, 2)
    wide = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 6)))[0].T
    assert fid(base @ wide, adapted @ wide) == pytest.approx(fid(base, adapted), rel=1e-10)


# Pinned from torch-fidelity, which takes square roots of eigenvalues: rounding errors near 0 grow to their roots there.
@pytest.mark.parametrize(
    ("shape", "value"), [((4, 4, 1), 4.753837617), ((330, 64, 2023), 6.7716058), ((330, 512, 2023), 379.787648164)]
)
def test_fid_keeps_to_pinned_values(shape: tuple[int, int, int], value: float) -> None:
    assert fid(*pair(*shape)) == pytest.approx(value, rel=1e-9 if shape[0] > shape[1] else 5e-8)


def test_kid_keeps_to_a_pinned_value() -> None:
    assert kid(*pair(330, 64, 2023), aligned=False) == pytest.approx(-8.80619e-4, rel=1e-6)


def test_fid_is_zero_for_equal_rows_and_never_negative() -> None:
    for seed in range(8):
        base, _ = pair(30, 50, seed)
        assert fid(base, base.copy()) == 0
        assert 0 <= fid(base, base[::-1]) < 1e-12


@pytest.mark.parametrize(("distance", "kernel"), ROW_LEVEL)
@pytest.mark.parametrize("aligned", [False, True])
def test_row_level_statistics_equal_a_double_loop(distance: Any, kernel: Kernel, aligned: bool) -> None:
    base, adapted = pair(9, 5, 4)
    total = within = across = crossed = 0.0
    for i in range(9):
        for j in range(9):
            x, y = base[[i]], adapted[[j]]
            if i != j:
                within += float(kernel(x, base[[j]])[0, 0] + kernel(adapted[[i]], y)[0, 0]) / 72
            if i != j or not aligned:
                across, crossed = across + float(kernel(x, y)[0, 0]), crossed + 1
    total = within - 2 * across / crossed
    assert distance(base, adapted, aligned=aligned) == pytest.approx(total, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(("distance", "kernel"), ROW_LEVEL)
def test_tables_leave_out_every_two_rows_of_one_prompt_or_seed(distance: Any, kernel: Kernel) -> None:
    base, adapted, prompts, seeds = draw(np.random.default_rng(5), 4, 3, 5, shift=1)
    found = [
        (kernel(base[[i]], base[[j]]) + kernel(adapted[[i]], adapted[[j]]) - 2 * kernel(base[[i]], adapted[[j]])).item()
        for i, j in np.ndindex(12, 12)
        if prompts[i] != prompts[j] and seeds[i] != seeds[j]
    ]
    row = measure(base, adapted, prompts, seeds)[distance.__name__, "seed-matched"]
    assert row.value == pytest.approx(np.mean(found), rel=1e-10)


def test_kernels_are_the_published_ones() -> None:
    assert polynomial_kernel(np.array([[1.0, 2.0]]), np.array([[3.0, -1.0]])).item() == pytest.approx(1.5**3)
    # Unit vectors at a right angle: squared distance 2, and 2 sigma² = 200.
    assert gaussian_kernel(np.array([[5.0, 0.0]]), np.array([[0.0, 0.1]])).item() == pytest.approx(1000 * np.exp(-0.01))


def test_fid_kid_and_cmmd_agree_with_torch_fidelity() -> None:
    torch = pytest.importorskip("torch")
    peer_fid = pytest.importorskip("torch_fidelity.metric_fid")
    peer_kid = pytest.importorskip("torch_fidelity.metric_kid")
    for n, d in ((330, 64), (60, 128)):
        base, adapted = pair(n, d, 2023)
        moments = [peer_fid.fid_features_to_statistics(torch.tensor(x)) for x in (base, adapted)]
        expected = peer_fid.fid_statistics_to_metric(*moments, False)[peer_fid.KEY_METRIC_FID]
        assert fid(base, adapted) == pytest.approx(expected, rel=1e-6)
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (base, adapted)]
        for (x, y), name, options, scale, own in (
            ((base, adapted), "kernel_poly", {"degree": 3, "gamma": None, "coef0": 1.0}, 1, kid),
            (unit, "kernel_rbf", {"sigma": 10.0}, 1000, cmmd),
        ):
            settings = {f"kid_{name}_{key}": value for key, value in options.items()}
            kernels = [getattr(peer_kid, name)(a, b, **settings) for a, b in ((x, x), (x, y), (y, y))]
            for aligned, estimator in ((False, "unbiased"), (True, "u-statistic")):
                value = scale * peer_kid.mmd2(*kernels, mmd_est=estimator)
                assert own(base, adapted, aligned=aligned) == pytest.approx(value, rel=1e-6, abs=1e-11)


def test_fid_and_kid_agree_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    peer_fid, peer_kid = pytest.importorskip("torchmetrics.image.fid"), pytest.importorskip("torchmetrics.image.kid")
    base, adapted = (torch.tensor(x) for x in pair(330, 64, 2023))
    expected = peer_fid._compute_fid(base.mean(0), torch.cov(base.T), adapted.mean(0), torch.cov(adapted.T))
    assert fid(base.numpy(), adapted.numpy()) == pytest.approx(float(expected), rel=1e-6)
    value = float(peer_kid.poly_mmd(base, adapted))
    assert kid(base.numpy(), adapted.numpy(), aligned=False) == pytest.approx(value, rel=1e-6)


def test_pairing_makes_the_usual_kid_negative_and_leaves_the_aligned_one_unbiased() -> None:
    rng = np.random.default_rng(6)
    usual, aligned = [], []
    for _ in range(200):
        base, other = rng.normal(size=(2, 25, 8))
        adapted = 0.8 * base + 0.6 * other
        usual.append(kid(base, adapted, aligned=False))
        aligned.append(kid(base, adapted, aligned=True))
    assert stats.ttest_1samp(usual, 0).statistic < -20
    assert abs(stats.ttest_1samp(aligned, 0).statistic) < 3


@pytest.mark.parametrize("shape", [(33, 10, 64), (5, 5, 33)])
def test_an_identity_is_exactly_zero_where_seeds_match_and_its_null_where_they_do_not(
    shape: tuple[int, int, int],
) -> None:
    base, _, prompts, seeds = draw(np.random.default_rng(9), *shape)
    for (_, design), row in measure(base, base.copy(), prompts, seeds).items():
        if design == "seed-matched":
            assert (row.value, row.low, row.high, row.null) == (0, 0, 0, 0)
        else:
            assert row.value == pytest.approx(row.null, rel=1e-9)


def test_closeness_of_pairs_lowers_a_seed_matched_fid_with_its_null_and_no_other() -> None:
    rng = np.random.default_rng(10)
    loose, close = (measure(*draw(rng, 20, 6, 16, rho=rho)) for rho in (0.1, 0.95))
    for rows in (loose, close):
        for design in ("seed-matched", "disjoint seeds"):
            assert rows["fid", design].value == pytest.approx(rows["fid", design].null, rel=0.25)
    assert close["fid", "seed-matched"].value < 0.2 * loose["fid", "seed-matched"].value  # type: ignore[operator]
    assert close["fid", "disjoint seeds"].value == pytest.approx(loose["fid", "disjoint seeds"].value, rel=0.25)


def test_disjoint_seeds_are_measured_both_ways() -> None:
    base, adapted, prompts, seeds = draw(np.random.default_rng(19), 8, 6, 5, shift=1)
    ways = [measure(base, adapted, prompts, x) for x in (seeds, seeds ^ 1)]
    for metric in ("fid", "kid", "cmmd"):
        values = [way[metric, "disjoint seeds"].value for way in ways]
        assert values[0] == pytest.approx(values[1], rel=1e-9)


@pytest.mark.parametrize(("metric", "tolerance"), [("kid", 1e-9), ("cmmd", 1e-9), ("fid", 0.03)])
def test_intervals_are_those_of_leaving_out_each_prompt_and_each_seed(metric: str, tolerance: float) -> None:
    data = draw(np.random.default_rng(11), 12, 5, 6, shift=6)

    def variance(groups: np.ndarray) -> tuple[float, int]:
        # FID's bias grows when rows are left out; what counts is how the estimates scatter.
        kept = [measure(*(x[groups != g] for x in data))[metric, "seed-matched"].value for g in np.unique(groups)]
        return (len(kept) - 1) * float(np.var(np.array(kept, float))), len(kept) - 1

    (a, i), (b, j) = variance(data[2]), variance(data[3])
    reach = stats.t.ppf(0.975, (a + b) ** 2 / (a**2 / i + b**2 / j)) * np.sqrt(a + b)
    row = measure(*data)[metric, "seed-matched"]
    assert row.value is not None
    assert row.high == pytest.approx(row.value + reach, abs=tolerance * reach)
    assert row.low == pytest.approx(max(row.value - reach, 0 if metric == "fid" else -np.inf), abs=tolerance * reach)


def test_rows_are_told_apart_by_adapter_and_category_and_say_what_they_are() -> None:
    base, adapted, prompts, seeds = draw(np.random.default_rng(13), 8, 6, 5)
    categories = np.where(prompts < 4, "scenes", "people")
    twice = [np.tile(x, 2) for x in (prompts, seeds, categories)]
    adapters = np.repeat(["b", "a"], len(base))
    both = np.concatenate((base, base)), np.concatenate((adapted, base))
    found = distances_by_category(*both, twice[0], twice[1], twice[2], adapters, "inception")
    assert [(r.adapter, r.prompt_category) for r in found[::6]] == [
        ("b", "scenes"), ("b", "people"), ("a", "scenes"), ("a", "people"),
    ]  # fmt: skip
    assert {(r.n, r.prompts, r.design) for r in found} == {(24, 4, "seed-matched"), (12, 4, "disjoint seeds")}
    assert all(r.features == "inception" and "jackknife" in r.method and r.reason is None for r in found)
    part = prompts >= 4
    alone = measure(*(x[part] for x in (base, adapted, prompts, seeds)))
    assert [r.value for r in found[6:12]] == [r.value for r in alone.values()]


def test_halves_stay_balanced_where_images_are_missing() -> None:
    base, adapted, prompts, seeds = draw(np.random.default_rng(14), 6, 7, 5)
    # Prompt 0 keeps its even seeds alone, prompt 1 lacks one odd seed; seed 6 is the odd one out.
    kept = ~((prompts == 0) & (seeds % 2 == 1)) & ~((prompts == 1) & (seeds == 3))
    rows = measure(*(x[kept] for x in (base, adapted, prompts, seeds)))
    assert {(r.n, r.prompts) for r in rows.values()} == {(38, 6), (4 * 3 + 2, 5)}
    assert all(row.value is not None for row in rows.values())


RAGGED: dict[str, tuple[Callable[[Draw], Draw], str]] = {
    "one prompt": (lambda t: (t[0], t[1], t[2] * 0, np.arange(24)), "fewer than two prompts"),
    "one seed": (lambda t: (t[0], t[1], np.arange(24), t[3] * 0), "fewer than two seeds"),
    "not a number": (lambda t: (t[0], np.where(t[2][:, None] == 2, np.nan, t[1]), *t[2:]), "rows not finite: 0 base"),
    "infinite": (lambda t: (t[0] * 1e300, *t[1:]), "rows not finite"),
    "constant": (lambda t: (t[0], t[1] * 0 + 1, *t[2:]), "constant features"),
    "zeros": (lambda t: (t[0] * (t[3] != 1)[:, None], *t[1:]), "rows of zeros"),
    "no columns": (lambda t: (t[0][:, :0], t[1][:, :0], *t[2:]), "rows of zeros"),
    "twice the same": (lambda t: (t[0], t[1], t[2], t[3] // 2), "a prompt and seed occur twice"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", RAGGED)
def test_data_that_hold_no_answer_get_a_reason_instead_of_a_number(case: str) -> None:
    change, reason = RAGGED[case]
    for row in measure(*change(draw(np.random.default_rng(15), 6, 4, 5))).values():
        assert (row.value, row.low, row.high, row.null) == (None,) * 4
        assert row.reason is not None
        assert row.reason.startswith(reason) or row.design == "disjoint seeds"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("prompts", "seeds"), [(2, 2), (2, 5), (3, 2), (3, 3), (5, 4)])
def test_few_prompts_or_seeds_give_a_reason_for_whatever_is_missing(prompts: int, seeds: int) -> None:
    for row in measure(*draw(np.random.default_rng(16), prompts, seeds, 2)).values():
        assert (row.reason is None) == (row.low is not None and row.high is not None)
        assert (row.value is None) == (row.null is None)
        assert row.low is None or row.low >= 0 or row.metric != "fid"


def test_arrays_that_do_not_match_are_refused() -> None:
    base, adapted, prompts, seeds = draw(np.random.default_rng(17), 4, 3, 5)
    with pytest.raises(ValueError, match=r"4 x \(N,\)"):
        measure(base, adapted, prompts[:-1], seeds)
    with pytest.raises(ValueError, match="equal if aligned"):
        kid(base, adapted[:-1], aligned=True)
    with pytest.raises(ValueError, match="at least 2"):
        fid(base[:1], adapted)
