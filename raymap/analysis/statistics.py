"""The types of statistics.json: what `reduce_run` writes and every reader may rely on.

Keys that older run folders lack are `NotRequired`. Units: E_sem and its kin are differences of CLIP cosines, E_per is
an LPIPS distance, E is between 0 and 1. A value that could not be estimated is None, and `reason` says why.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from raymap.analysis.estimates import Crossed, Interval, OverPrompts, PairsMean, Percentile


class MatchedFloor(TypedDict):
    """The thresholds for means over `seeds` seeds: median and range over prompts, and what they rest on."""

    median: float | None
    lowest: float | None
    highest: float | None
    sd_pair: float | None
    seeds: int
    prompts: int
    pairs: int
    df: int
    reason: str | None


class MatchedFloors(TypedDict):
    e_sem: MatchedFloor
    e_per: MatchedFloor
    note: str


class FloorSummary(TypedDict):
    """What re-seeding the base does."""

    pairs: int
    tau_sem: Percentile | None
    tau_per: Percentile | None
    mean_e_sem: PairsMean
    mean_e_per: PairsMean
    matched: MatchedFloors
    note: str
    reason: str | None


class IdentityControl(TypedDict):
    """The largest values of the null adapters that were drawn; `below_…` counts the cells that are no larger."""

    present: bool
    exact: bool | None
    max_e_sem: float | None
    max_e_per: float | None
    cells: int
    proved: NotRequired[list[str]]
    below_e_sem: int | None
    below_e_per: int | None
    consequence: str


class Incomplete(TypedDict):
    """The cells of one adapter that hold fewer than `seeds` seeds."""

    adapter: str
    cells: int
    fewest_seeds: int
    prompts: list[str]
    seeds: int


class Named(TypedDict):
    """What names an adapter."""

    adapter: str
    method: str
    subject: str
    subject_category: str


class Means(TypedDict):
    """One adapter's means of all measures."""

    e_sem: OverPrompts
    e_sem_signed: OverPrompts
    e_per: OverPrompts
    e: OverPrompts


class AdapterSummary(Named, Means):
    """One adapter over its non-target prompts; `target` is over the prompts of the subject's own category."""

    scope: str
    above_tau_sem: int | None
    above_tau_per: int | None
    above_matched_sem: int | None
    above_matched_per: int | None
    below_numerical_sem: int | None
    below_numerical_per: int | None
    target_e_sem: float | None
    target_e_per: float | None
    target: Means


class Normalization(TypedDict):
    """The range that E scales its two measures by, as [lowest, highest]."""

    method: str
    e_sem: list[float | None]
    e_per: list[float | None]


class AdapterUnderRanges(TypedDict):
    """Mean E of one adapter under each range."""

    adapter: str
    map: float
    method: float
    prompt_category: float
    robust: float
    n: int


class RangeOrder(TypedDict):
    """Rank correlations of the adapters' order under one range with their order under the default range."""

    range: str
    n: int
    kendall: float | None
    spearman: float | None
    reason: str | None


class Sensitivity(TypedDict):
    """E under other ranges; `orders_of_moving` leaves out the adapters that shift nothing (older files lack it)."""

    ranges: dict[str, str]
    adapters: list[AdapterUnderRanges]
    orders: list[RangeOrder]
    orders_of_moving: NotRequired[list[RangeOrder]]


class MethodRow(TypedDict):
    """One row of Table 1; `…_std` is the standard deviation between subjects."""

    method: str
    subject_category: str
    subjects: int
    e_sem: Crossed
    e_sem_std: float | None
    e_per: Crossed
    e_per_std: float | None
    e_sem_signed: Crossed
    e_sem_signed_std: float | None
    e: Crossed
    e_std: float | None


class MethodOrder(TypedDict):
    """The difference between two methods that are neighbours in the paper's order, tested within subjects."""

    measure: str
    subject_category: str
    claim: str
    difference: Crossed
    p: float | None
    direction_holds: bool | None


class TwoCrossed(TypedDict):
    e_sem: Crossed
    e_per: Crossed


class RankedPrompt(TypedDict):
    """One prompt of Table 2; `stability` is the share of resamples of subjects that list it again."""

    prompt_id: str
    prompt: str
    prompt_category: str
    e_sem: float
    e_per: float | None
    subjects: int
    estimate: TwoCrossed
    stability: float | None


class CategoryRow(TwoCrossed):
    """One subject category on one prompt category (Figure 3)."""

    subject_category: str
    prompt_category: str


class Region(Named):
    """One adapter's place in Figure 1."""

    e_sem: float | None
    e_per: float | None
    n: int
    region: str | None
    reason: str | None


class PooledTest(TypedDict):
    """The paper's Mann-Whitney U over cells; `n` counts the cells of both groups."""

    test: str
    u: float
    p: float
    common_language: float
    rank_biserial: float
    n: list[int]


class HypothesisRow(TypedDict):
    """One claim; the four of the paper carry `p_holm`, those by prompt category `q_bh`."""

    hypothesis: str
    claim: str
    alternative: str
    difference: Crossed
    p: float | None
    p_subject_permutation: float | None
    pooled: PooledTest | None
    reason: str | None
    p_holm: NotRequired[float | None]
    q_bh: NotRequired[float | None]


class ShiftCounts(TypedDict):
    """How many of an adapter's non-target prompts were tested, and how many of them shifted (`shifts.FDR`)."""

    adapter: str
    tested_sem: int
    tested_per: int
    tested_signed: int
    shifted_sem: int | None
    shifted_per: int | None
    shifted_signed: int | None
    method: str
    reason: str | None


class Missing(TypedDict):
    """The names of the adapters and prompts of which nothing could be measured."""

    adapters: list[str]
    prompts: list[str]


class ComponentSummary(TypedDict):
    """Standard deviations between prompts, subjects, cells and seeds."""

    sd_prompt: float | None
    sd_subject: float | None
    sd_cell: float | None
    sd_seed: float | None
    seed_df: int
    reason: str | None


class PowerClaim(TypedDict):
    """The smallest effect that a claim's test detects; `prompts` and `subjects` are the sizes of the groups."""

    claim: str
    prompts: list[int]
    subjects: list[int]
    se: float | None
    df: float | None
    detectable: float | None
    detectable_at_any_seeds: float | None
    seeds_needed: int | None
    reason: str | None


class Power(TypedDict):
    alpha: float
    power: float
    seeds: float
    wanted: float | None
    wanted_is: str
    method: str
    components: dict[str, ComponentSummary]
    claims: list[PowerClaim]


class DistanceRow(Interval):
    """One distance between the images of base and adapter (`raymap.analysis.numerics.distances.Distance`)."""

    adapter: str
    prompt_category: str
    features: str
    metric: str
    design: str
    n: int
    prompts: int
    null: float | None
    method: str
    reason: str | None


class Agreement(TypedDict):
    """The rank correlation of a distance with E."""

    metric: str
    design: str
    features: str
    n: int
    rho: float | None
    reason: str | None


class JudgeSummary(TypedDict):
    """What a further judge declares, and its noise floor.

    `tau` is None without seed pairs; `largest_control` is the largest shift of an identity control, None if there is
    none.
    """

    judge: str
    kind: str
    version: str
    unit: str
    higher_is_better: bool
    pairs: int
    tau: Percentile | None
    largest_control: float | None
    reason: str | None


class JudgedAdapter(Named):
    """What one judge finds of one adapter, over its non-target prompts.

    Only prompt judges have `shift_signed`; the counts are None without a noise floor.
    """

    judge: str
    shift: OverPrompts
    shift_signed: OverPrompts | None
    above_tau: int | None
    above_matched: int | None


class Judged(TypedDict):
    """The judges beside CLIP and LPIPS."""

    judges: list[JudgeSummary]
    adapters: list[JudgedAdapter]


class Statistics(TypedDict):
    """All of statistics.json."""

    digest: str
    noise_floor: FloorSummary
    identity_control: IdentityControl
    incomplete: list[Incomplete]
    adapters: list[AdapterSummary]
    normalization: Normalization
    sensitivity: NotRequired[Sensitivity]
    table_1: list[MethodRow]
    method_order: list[MethodOrder]
    most_fragile: list[RankedPrompt]
    most_robust: list[RankedPrompt]
    category_by_category: list[CategoryRow]
    regions: list[Region]
    hypotheses: list[HypothesisRow]
    shifts: list[ShiftCounts]
    missing: NotRequired[Missing]
    power: NotRequired[Power]
    distances: NotRequired[list[DistanceRow]]
    distance_agreement: NotRequired[list[Agreement]]
    judged: NotRequired[Judged]
