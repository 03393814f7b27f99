"""The types of attention.json, interventions.json and factorial.json, as raymap.analysis.statistics has the map's."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from raymap.analysis.estimates import Crossed, CrossedTested, Interval

Winner = Literal["first", "second", "neither", "unknown"]
"""Which of two is larger by the interval of their difference."""


class Ratio(Interval):
    """A ratio of two means over `n` prompts."""

    n: int
    method: str


class AttentionControl(TypedDict):
    """Whether the attention of every identity control was exactly the base's; `rows` counts what was compared."""

    present: bool
    exact: bool | None
    max_delta: float | None
    max_js: float | None
    rows: int
    computed: NotRequired[int]


class AttentionMeans(TypedDict):
    """One adapter's shift of attention over non-target prompts."""

    adapter: str
    protocol: str
    tokens: str
    method: str
    subject: str
    delta: Crossed
    relative: Crossed
    js: Crossed


class DirectShare(Ratio):
    """How much of an adapter's free-running shift it makes on the base's own latents."""

    adapter: str


AttentionCorrelation = TypedDict(
    "AttentionCorrelation",
    {"protocol": str, "tokens": str, "measure": str, "with": str, "value": float | None, "low": float | None,
     "high": float | None, "by_adapter": list[float], "n": int, "adapters": int, "method": str,
     "reason": str | None},
)  # fmt: skip
"""The rank correlation of one measure of attention `with` E_sem or E_per; the rest is a `RankCorrelation`."""


class AttentionPrompt(TypedDict):
    """One prompt of Table 3: mean |ΔA| · 10⁴ of each adapter."""

    prompt_id: str
    prompt: str
    prompt_category: str
    protocol: str
    e_sem: float | None
    delta_e4: dict[str, float]


class LayerShift(TypedDict):
    """The shift of one layer within one bin of denoising steps, averaged over adapters of a method."""

    method: str
    protocol: str
    layer: str
    bin: int
    timestep: float
    tokens: str
    delta: float
    relative: float | None
    js: float


class AttentionOfCells(TypedDict):
    """What rests on attention's cells alone."""

    scope: str
    adapters: list[AttentionMeans]
    direct: list[DirectShare]
    correlations: list[AttentionCorrelation]
    table_3: list[AttentionPrompt]
    reading: list[str]


class AttentionOfRows(AttentionOfCells):
    """What rests on attention's cells and on the rows that they average."""

    identity_control: AttentionControl
    layers: list[LayerShift]


class AttentionSummary(AttentionOfRows):
    """All of attention.json."""

    digest: str


class DosePoint(Crossed):
    dose: float


DoseStep = TypedDict(
    "DoseStep",
    {"from": float, "to": float, "value": float | None, "low": float | None, "high": float | None, "n": int,
     "subjects": int, "df": float | None, "method": str, "reason": str | None},
)  # fmt: skip
"""The rise `from` one dose `to` the next; the rest is a `Crossed`."""


class LevelMean(Crossed):
    level: str


class DoseResponse(TypedDict):
    """A measure's curve over doses."""

    curve: list[DosePoint]
    slope: Crossed
    monotonicity: Crossed
    steps: list[DoseStep]


class PartsAndWhole(TypedDict):
    """A measure of every part of an update alone, of their sum, and of the whole update."""

    levels: list[LevelMean]
    sum: Crossed
    whole: Crossed
    sum_over_whole: Ratio


class AgainstRandom(TypedDict):
    """A measure of an adapter beside that of `draws` random updates of its norm and rank."""

    draws: int
    learned: Crossed
    random: Crossed
    difference: Crossed
    random_over_learned: Ratio


class OfAdapter(TypedDict):
    """Which adapter, and which measure, a row is about."""

    adapter: str
    method: str
    subject: str
    measure: str


class DoseRow(OfAdapter, DoseResponse):
    """One adapter's dose response."""


class PartsRow(OfAdapter, PartsAndWhole):
    """One adapter's parts of one family."""

    family: str


class RandomRow(OfAdapter, AgainstRandom):
    """One adapter beside random updates."""


class MethodDifference(Crossed):
    """The difference between two methods within subjects, under one scale."""

    scale: str
    measure: str
    first: str
    second: str
    order: Winner


class DoseCheck(TypedDict):
    """Whether dose 0 gave the base's images and dose 1 the adapter's, to the byte; None if that is not known."""

    adapter: str
    dose_0_is_the_base: bool | None
    dose_1_is_the_adapter: bool | None


class InterventionsOfCells(TypedDict):
    """What rests on the cells of variants alone."""

    scope: str
    dose: list[DoseRow]
    parts: list[PartsRow]
    random: list[RandomRow]
    methods: list[MethodDifference]
    reading: list[str]


class InterventionsSummary(InterventionsOfCells):
    """All of interventions.json."""

    digest: str
    checks: list[DoseCheck]


class DesignMean(TypedDict):
    """The mean of one cell of the 2 × 2 design."""

    measure: str
    method: str
    kind: str
    make: str
    estimate: Crossed


class DesignContrast(TypedDict):
    """A main effect, or the interaction."""

    measure: str
    method: str
    contrast: str
    estimate: CrossedTested


class FactorialSummary(TypedDict):
    """All of factorial.json."""

    suite: str
    cells: list[DesignMean]
    contrasts: list[DesignContrast]
    reading: list[str]
