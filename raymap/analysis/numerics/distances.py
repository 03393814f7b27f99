"""Distances between the feature distributions of base and adapted images: FID, KID and CMMD, each beside its null.

*Bias.* FID lies far above 0 even for two samples of one distribution (arXiv:1911.07023), so it is reported beside its
null at the same N. KID and CMMD are estimated without bias.
*Dependence.* An adapted image shares prompt and noise with its base image, images of one prompt share the prompt, and
images of one seed share the initial noise whatever the prompt. The usual "unbiased" MMD falls below 0 where pairs
correlate. The aligned one is unbiased if pairs are independent of one another, which pairs of one prompt or of one seed
are not. The estimate here therefore leaves out every two rows that share a prompt *or* a seed. It estimates the squared
MMD between the mixtures over all prompts and noises of which these are a sample; a row-level statistic would add part
of the variance, between prompts and between seeds, of shifts that average out.
*Designs.* "seed-matched" compares all rows. "disjoint seeds" compares base images of one half of the seeds with adapted
images of the other half, averaged over both ways; unlike a seed-matched FID, it does not depend on how closely an
adapter keeps to the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import stats

from raymap.analysis.numerics.crossed import CONFIDENCE

SEED_MATCHED, DISJOINT = "seed-matched", "disjoint seeds"
NULLS = {
    SEED_MATCHED: "base and adapted exchanged in half of the rows, same N and pairing",
    DISJOINT: "base against base, same N and disjoint seeds",
}
_PAIRS = "U-statistic over pairs of rows that share neither prompt nor seed"
ESTIMATORS = {
    "fid": "Fréchet distance, covariances over N-1; biased upwards, compare with null",
    "kid": f"squared MMD, kernel (x·y/D + 1)^3, {_PAIRS}",
    "cmmd": f"1000 × squared MMD, Gaussian kernel of unit vectors, sigma 10, {_PAIRS}",
}
INTERVAL = f"{CONFIDENCE:.0%} t interval, jackknife over prompts plus jackknife over seeds (crossed), Satterthwaite df"


@dataclass(frozen=True)
class Distance:
    """One estimate, its interval [low, high], and its null, which is the same estimate without any shift.

    FID is at least 0; KID and CMMD may be negative. `n` counts the rows of each of the two samples. `method` describes
    the estimator, the interval and the null; `reason` says why a value or an interval is None.
    """

    adapter: str
    prompt_category: str
    features: str
    metric: str
    design: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    prompts: int
    null: float | None
    method: str
    reason: str | None


# Rows (n, D) and labels (2, n): the prompt and the seed of each row, numbered from 0 over both samples.
Sample = tuple[np.ndarray, np.ndarray]
# Takes two samples, returns replicates (1 + P + K,): the estimate, then without each prompt, then without each seed.
Metric = Callable[[Sample, Sample], np.ndarray]


def fid(base: np.ndarray, adapted: np.ndarray) -> float:
    """Return |m1 - m2|² + tr(S1 + S2 - 2(S1 S2)^½) (arXiv:1706.08500, eq. 6), at least 0, and 0 for equal arrays.

    The covariances S are divided by n - 1 and may be singular. Rows are finite floats (n, D) and (m, D), n, m ≥ 2;
    other shapes raise a ValueError.
    """
    return _row_level("fid", base, adapted, aligned=False)


def kid(base: np.ndarray, adapted: np.ndarray, *, aligned: bool) -> float:
    """Return the row-level squared MMD of `polynomial_kernel` between rows as `fid` takes them.

    This two-sample U-statistic is unbiased if the samples are independent. With `aligned` (n = m), i = j is left out of
    the cross term too, which is unbiased if row pair i is independent of row pair j (Gretton et al. 2012, JMLR 13,
    Lemma 6).
    """
    return _row_level("kid", base, adapted, aligned)


def cmmd(base: np.ndarray, adapted: np.ndarray, *, aligned: bool) -> float:
    """Return the row-level squared MMD of `gaussian_kernel`, estimated as in `kid` (the published code's is biased)."""
    return _row_level("cmmd", base, adapted, aligned)


def polynomial_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return KID's (a·b/D + 1)³, (n, m), between rows (n, D) and (m, D) (arXiv:1801.01401, section 4)."""
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


def gaussian_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return CMMD's 1000·exp(-|a - b|²/(2·10²)), (n, m), between rows scaled to length 1 (arXiv:2401.09603)."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return np.asarray(1000 * np.exp((a @ b.T - 1) / 10**2))  # |a - b|² = 2 - 2 a·b between unit vectors


def distances_by_category(
    base: np.ndarray,
    adapted: np.ndarray,
    prompts: np.ndarray,
    seeds: np.ndarray,
    categories: np.ndarray,
    adapters: np.ndarray,
    features: str,
) -> list[Distance]:
    """Measure every adapter within every prompt category, by two designs and three metrics, in order of appearance.

    Data that hold no answer (one prompt, one seed, rows that are not finite, constant features, …) give rows whose
    value is None and whose `reason` says why. Takes about 40 N² bytes of memory for N rows of one adapter and category.

    Args:
        base: float (N, D), features of the base image, repeated for every adapter.
        adapted: float (N, D), features of the adapted image of the same prompt and seed.
        prompts, seeds: int (N,); equal seeds mean equal initial noise, across prompts too.
        categories, adapters: str (N,), the category of the prompt, and the adapter.
        features: what the features are, for example `clip:embedded`.

    Raises:
        ValueError: the shapes of the arrays disagree.
    """
    base, adapted = np.asarray(base, np.float64), np.asarray(adapted, np.float64)
    prompts, seeds, categories, adapters = labels = [np.asarray(x) for x in (prompts, seeds, categories, adapters)]
    if base.ndim != 2 or base.shape != adapted.shape or {x.shape for x in labels} != {base.shape[:1]}:
        raise ValueError(f"expected (N, D), (N, D), 4 x (N,); got {[x.shape for x in (base, adapted, *labels)]}")
    found = []
    for adapter, category in dict.fromkeys(zip(adapters.tolist(), categories.tolist(), strict=True)):
        own = (adapters == adapter) & (categories == category)
        pairs = _Pairs(base, adapted, np.stack((prompts, seeds))).where(own)
        for design in NULLS:
            for metric in ESTIMATORS:
                method = f"{ESTIMATORS[metric]}; interval: {INTERVAL}; null: {NULLS[design]}"
                label = (adapter, category, features, metric, design)
                found.append(_measured(Distance(*label, None, None, None, 0, 0, None, method, None), pairs))
    return found


@dataclass(frozen=True)
class _Pairs:
    """Seed-matched rows (N, D) with labels (2, N): prompts and seeds, numbered 0..P-1 and 0..K-1 after `where`."""

    base: np.ndarray
    adapted: np.ndarray
    labels: np.ndarray

    def where(self, kept: np.ndarray) -> _Pairs:
        labels = np.stack([np.unique(x[kept], return_inverse=True)[1] for x in self.labels])
        return _Pairs(self.base[kept], self.adapted[kept], labels)

    @property
    def counts(self) -> tuple[int, int]:
        return self.labels[0].max(initial=-1) + 1, self.labels[1].max(initial=-1) + 1

    def problem(self) -> str | None:
        """Name what keeps these rows from holding an answer, if anything does."""
        if min(self.counts) < 2:
            return f"fewer than two {'prompts' if self.counts[0] < 2 else 'seeds'}"
        if np.unique(self.labels, axis=1).shape < self.labels.shape:
            return "a prompt and seed occur twice"
        both = np.stack((self.base, self.adapted))
        bad = ~(np.abs(both) <= np.finfo(np.float32).max).all(axis=2)
        if bad.any():
            return f"rows not finite: {bad[0].sum()} base, {bad[1].sum()} adapted"
        if not np.linalg.norm(both, axis=2).all():
            return "rows of zeros"
        return "constant features" if (both == both[:, :1]).all(axis=(1, 2)).any() else None


def _measured(blank: Distance, pairs: _Pairs) -> Distance:
    """Fill in the numbers, or the reason why there are none."""
    pairs, first = _halved(pairs) if blank.design == DISJOINT else (pairs, np.ones(len(pairs.base), bool))
    blank = replace(blank, n=int(first.sum()), prompts=int(pairs.counts[0]))
    if problem := pairs.problem():
        return replace(blank, reason=problem)
    metric, is_fid = partial(METRICS[blank.metric], counts=pairs.counts), blank.metric == "fid"
    estimate, null = _seed_matched(metric, pairs, is_fid) if first.all() else _disjoint(metric, pairs, first)
    if not np.isfinite(estimate[0]):
        return replace(blank, reason="no two rows of a sample differ in both prompt and seed")
    blank = replace(blank, value=float(estimate[0]), null=null)
    if (interval := _interval(estimate, pairs.counts)) is None:
        return replace(blank, reason="too few prompts or seeds for an interval")
    return replace(blank, low=max(interval[0], 0.0) if is_fid else interval[0], high=interval[1])


def _seed_matched(metric: Metric, pairs: _Pairs, by_seed: bool) -> tuple[np.ndarray, float]:
    """Return replicates of base against adapted, and the null, for which half of the rows swap base and adapted.

    FID's bias depends on what the images of a seed have in common, so whole seeds are swapped; an odd number of seeds
    leaves 1/K² of the squared shift of means in the null. KID and CMMD compare no rows of one seed; a checkerboard over
    prompts and seeds leaves about 1/((P-1)(K-1)) of the squared MMD.
    """
    board = pairs.labels[1] if by_seed else pairs.labels.sum(0)
    x, y = (np.where(board[:, None] % 2 == odd, pairs.adapted, pairs.base) for odd in (1, 0))
    null = float(metric((x, pairs.labels), (y, pairs.labels))[0])
    return metric((pairs.base, pairs.labels), (pairs.adapted, pairs.labels)), null


def _disjoint(metric: Metric, pairs: _Pairs, first: np.ndarray) -> tuple[np.ndarray, float]:
    """Return replicates of base against adapted images of the other half of the seeds, and the null.

    The replicates are means of both ways of pairing the halves.
    """
    a, b = ([(rows[half], pairs.labels[:, half]) for rows in (pairs.base, pairs.adapted)] for half in (first, ~first))
    return (metric(a[0], b[1]) + metric(b[0], a[1])) / 2, float(metric(a[0], b[0])[0])


def _halved(pairs: _Pairs) -> tuple[_Pairs, np.ndarray]:
    """Return the pairs that split evenly into halves of the seeds for every prompt, and which are in the first half."""
    first = pairs.labels[1] % 2 == 0
    kept = np.zeros(len(first), bool)
    for prompt in range(pairs.counts[0]):
        # Halves in which prompts weighed differently would differ without any shift.
        a, b = (np.flatnonzero((pairs.labels[0] == prompt) & half) for half in (first, ~first))
        kept[a[: len(b)]] = kept[b[: len(a)]] = True
    return pairs.where(kept), first[kept]


def _interval(replicates: np.ndarray, counts: tuple[int, int]) -> tuple[float, float] | None:
    """Return the jackknife's t interval; None if there are too few prompts or seeds.

    Prompts and seeds are crossed, so the variances of both jackknives add up (to slightly too much, because the
    variance of single images is in both). Degrees of freedom: Satterthwaite 1946, Biometrics 2.
    """
    if min(counts) < 3 or not np.isfinite(replicates).all():
        return None
    value, sizes = float(replicates[0]), np.array(counts)
    parts = (sizes - 1) * [groups.var() for groups in np.split(replicates[1:], counts[:1])]
    if not parts.any():
        return value, value
    df = parts.sum() ** 2 / (parts**2 / (sizes - 1)).sum()
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, df) * np.sqrt(parts.sum()))
    return value - reach, value + reach


def _mmd2(kernel: Callable[..., np.ndarray], x: Sample, y: Sample, counts: tuple[int, int]) -> np.ndarray:
    """Return replicates of the squared MMD over pairs of rows that share neither prompt nor seed; NaN without any."""
    if np.array_equal(x[0], y[0]):
        # BLAS multiplies an array by itself and by its copy in different ways; an identity must give exactly 0.
        y = x[0], y[1]

    def mean(a: Sample, b: Sample) -> np.ndarray:
        apart = (a[1][:, :, None] != b[1][:, None]).all(axis=0)
        totals = []
        for values in (np.where(apart, kernel(a[0], b[0]), 0.0), apart.astype(np.float64)):
            # No pair within a group counts, so no value is in both a group's rows and its columns.
            groups = _by_group(a[1], values.sum(1), counts) + _by_group(b[1], values.sum(0), counts)
            totals.append(values.sum() - np.append(0.0, groups))
        return np.asarray(totals[0] / np.where(totals[1] > 0, totals[1], np.nan))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def _frechet(x: Sample, y: Sample, counts: tuple[int, int]) -> np.ndarray:
    """Return replicates of the Fréchet distance, leaving groups out by the infinitesimal jackknife (Jaeckel 1972).

    With A'A = S1 and B'B = S2, tr (S1 S2)^½ is the sum of the singular values of M = AB' = U diag(s) V', so that no
    root of a singular product is needed. Its derivative by the weight of row i of A is ½(U diag(s) U')_ii, before n - 1
    is adjusted.
    """
    if np.array_equal(x[0], y[0]):
        return np.zeros(1 + sum(counts))
    shift = x[0].mean(0) - y[0].mean(0)
    a, b = ((rows - rows.mean(0)) / np.sqrt(len(rows) - 1) for rows, _ in (x, y))
    (qa, ra), (qb, rb) = np.linalg.qr(a), np.linalg.qr(b)
    u, s, vt = np.linalg.svd(ra @ rb.T, full_matrices=False)
    value = shift @ shift + (a * a).sum() + (b * b).sum() - 2 * s.sum()

    def influence(z: np.ndarray, singular: np.ndarray, towards: np.ndarray) -> np.ndarray:
        k, spread = len(z), (z * z).sum(1) - singular**2 @ s
        return np.asarray(2 * np.sqrt(k - 1) / k * (z @ towards) + spread - spread.sum() / (k - 1))

    groups = _by_group(x[1], influence(a, qa @ u, shift), counts)
    groups += _by_group(y[1], influence(b, qb @ vt.T, -shift), counts)
    # Only rounding can take the value below 0.
    return max(value, 0.0) - np.append(0.0, groups / (1 - 1 / np.repeat(counts, counts)))


def _by_group(labels: np.ndarray, values: np.ndarray, counts: tuple[int, int]) -> np.ndarray:
    """Return the sums (P + K,) of values (n,) over each prompt and over each seed."""
    return np.append(*(np.bincount(group, values, count) for group, count in zip(labels, counts, strict=True)))


METRICS: dict[str, Callable[..., np.ndarray]] = {
    "fid": _frechet,
    "kid": partial(_mmd2, polynomial_kernel),
    "cmmd": partial(_mmd2, gaussian_kernel),
}


def _row_level(metric: str, base: np.ndarray, adapted: np.ndarray, aligned: bool) -> float:
    """Return a metric if every row has a prompt and seed of its own, shared by row i of both samples if `aligned`."""
    x, y = np.asarray(base, np.float64), np.asarray(adapted, np.float64)
    if x.ndim != 2 or x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < 2 or (aligned and len(x) != len(y)):
        raise ValueError(f"expected (n, D) and (m, D), n and m at least 2, equal if aligned; got {x.shape}, {y.shape}")
    numbers = np.tile(np.arange(len(x) + len(y)), (2, 1))
    other = numbers[:, : len(y)] if aligned else numbers[:, len(x) :]
    return float(METRICS[metric]((x, numbers[:, : len(x)]), (y, other), (len(x) + len(y),) * 2)[0])
