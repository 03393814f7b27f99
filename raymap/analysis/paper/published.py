"""The paper's published figures as frozen records, read from `paper.yaml` and validated whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from raymap.errors import InputError
from raymap.study.recipes import Positive
from raymap.study.subject import SubjectCategory
from raymap.study.suite import CATEGORIES, PromptCategory

PAPER = Path(__file__).with_name("paper.yaml")
Method = Literal["textual_inversion", "lora", "custom_diffusion"]  # in the order of Eq. 13: least entangling first
METHODS: tuple[Method, ...] = get_args(Method)
SUBJECT_CATEGORIES: tuple[SubjectCategory, ...] = get_args(SubjectCategory)
CELLS = tuple(product(METHODS, SUBJECT_CATEGORIES))
STRICT = ConfigDict(extra="forbid")
NUMBER = r"\d+(\.\d+)?( \\times 10\^\{-?\d+\})?"

Text = Annotated[str, Field(min_length=1)]
Key = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Place = Annotated[str, Field(pattern=r"^(Abstract|§[1-8](\.[1-9])?(, Eq\. ([1-9]|1[0-3]))?|(Table|Figure) [1-3])$")]
"""Where in the paper: `Abstract`, `§3.4`, `§4.1, Eq. 13`, `Table 1`, `Figure 3`."""


@dataclass(frozen=True, config=STRICT)
class Figure:
    """One number as the paper prints it; its digits say how finely it can be compared."""

    printed: Annotated[str, Field(pattern=rf"^{NUMBER}$")]

    @property
    def _decimal(self) -> Decimal:
        return Decimal(self.printed.replace(r" \times 10^{", "e").rstrip("}"))

    @property
    def value(self) -> float:
        """The number itself."""
        return float(self._decimal)

    @property
    def rounding(self) -> float:
        """Half a unit of the last printed digit: values within it print alike."""
        return float(Decimal((0, (5,), int(self._decimal.as_tuple().exponent) - 1)))


@dataclass(frozen=True, config=STRICT)
class Range:
    """Two whole numbers with an en dash between them, ends included."""

    printed: Annotated[str, Field(pattern=r"^\d+–\d+$")]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"{self.printed!r} has its larger end first")
        return self

    @property
    def low(self) -> int:
        """The smaller end."""
        return int(self.printed.split("–")[0])

    @property
    def high(self) -> int:
        """The larger end."""
        return int(self.printed.split("–")[1])


def _quoted(value: Any) -> Any:
    # YAML would read an unquoted 0.020 as 0.02: the digits that a comparison rests on would be lost.
    if not isinstance(value, str):
        raise ValueError("is not quoted; quote it, digit for digit as printed")
    return {"printed": value}


Printed = Annotated[Figure, BeforeValidator(_quoted)]
PrintedRange = Annotated[Range, BeforeValidator(_quoted)]


def _once_each(found: list[Any], expected: list[Any]) -> None:
    given, wanted = Counter(found), Counter(expected)
    for problem, odd in (("lacks", wanted - given), ("has once too often", given - wanted)):
        if odd:
            raise ValueError(f"{problem}: {', '.join(map(str, odd))}")


def _keyed(*attributes: str, covering: Iterable[Any] = ()) -> AfterValidator:
    """Refuse records that share a key (or a mapping's keys), and with `covering` any but exactly these."""
    wanted = list(covering)

    def check(records: Any) -> Any:
        rows = [tuple(getattr(record, name) for name in attributes) or (record,) for record in records]
        keys = [row[0] if len(row) == 1 else row for row in rows]
        _once_each(keys, wanted or list(set(keys)))
        return records

    return AfterValidator(check)


@dataclass(frozen=True, config=STRICT)
class SubjectGroup:
    """Subjects of one category; `names` is empty where the paper names none."""

    category: SubjectCategory
    subjects: Positive
    dataset: Text
    names: tuple[Text, ...]

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        if self.names and len(set(self.names)) != self.subjects:
            raise ValueError(f"{len(set(self.names))} names for {self.subjects} subjects")
        return self


@dataclass(frozen=True, config=STRICT)
class MethodEntry:
    """A method: raymap's name, the paper's, its short form in tables, the parameters it changes, a rank if any."""

    method: Method
    printed: Text
    short: Text
    changes: Text
    rank: Positive | None = None


@dataclass(frozen=True, config=STRICT)
class Setup:
    """The experiment (§3.5). Sampler, guidance and training recipes are not printed."""

    place: Place
    base_model: Text
    text_encoder: Text
    subjects: Positive
    references_per_subject: PrintedRange
    subject_groups: Annotated[tuple[SubjectGroup, ...], _keyed("category", covering=SUBJECT_CATEGORIES)]
    methods: Annotated[tuple[MethodEntry, ...], _keyed("method", covering=METHODS)]
    adapters: Positive
    prompts: Positive
    prompts_by_category: Annotated[Mapping[PromptCategory, Positive], _keyed(covering=CATEGORIES)]
    seeds_per_prompt: Positive
    images_more_than: Positive

    @property
    def images_with_base(self) -> int:
        """Images that the printed counts make, base images included; this number itself is not printed."""
        return (1 + self.adapters) * self.prompts * self.seeds_per_prompt


@dataclass(frozen=True, config=STRICT)
class FloorFigures:
    """Percentiles over single pairs of base seeds (§3.4); `mean_e_sem` is that of all adapters, not of the floor."""

    place: Place
    prompts: Positive
    seed_pairs: Positive
    percentile: Annotated[int, Field(ge=1, le=99, strict=True)]
    tau_sem: Printed
    tau_per: Printed
    mean_e_sem: Printed


@dataclass(frozen=True, config=STRICT)
class MethodCell:
    """One row of Table 1: E_sem (CLIP cosine), E (min-max units, 0 to 1) and Std, presumably of E over subjects."""

    method: Method
    subject_category: SubjectCategory
    e_sem: Printed
    e: Printed
    std: Printed


@dataclass(frozen=True, config=STRICT)
class Table1:
    """Disruption by method and subject category."""

    place: Place
    subjects_per_cell: Positive
    cells: Annotated[tuple[MethodCell, ...], _keyed("method", "subject_category", covering=CELLS)]

    def cell(self, method: Method, subject_category: SubjectCategory) -> MethodCell:
        """Return one row."""
        return next(c for c in self.cells if (c.method, c.subject_category) == (method, subject_category))


@dataclass(frozen=True, config=STRICT)
class PromptDisruption:
    """A prompt and its mean E_sem (CLIP cosine)."""

    prompt: Text
    e_sem: Printed


FivePrompts = Annotated[tuple[PromptDisruption, ...], Field(min_length=5, max_length=5)]


@dataclass(frozen=True, config=STRICT)
class Table2:
    """The most and the least disrupted prompts, both from large to small as printed."""

    place: Place
    most_fragile: FivePrompts
    most_robust: FivePrompts

    @property
    def prompts(self) -> tuple[str, ...]:
        """All ten prompts, from most to least disrupted."""
        return tuple(row.prompt for row in (*self.most_fragile, *self.most_robust))


@dataclass(frozen=True, config=STRICT)
class CategoryMeans:
    """Mean E by subject category over all methods."""

    place: Place
    e: Annotated[Mapping[SubjectCategory, Printed], _keyed(covering=SUBJECT_CATEGORIES)]


@dataclass(frozen=True, config=STRICT)
class AttentionRow:
    """One row of Table 3; `prompt` as Table 2 has it, `printed` as Table 3 has it."""

    prompt: Text
    printed: Text
    disruption: Literal["high", "low"]
    face: Printed
    style: Printed


@dataclass(frozen=True, config=STRICT)
class Table3:
    """Mean |A_adapted − A_base| of one face and one style subject, multiplied by ten to the `exponent`."""

    place: Place
    exponent: Positive
    rows: Annotated[tuple[AttentionRow, ...], _keyed("prompt"), Field(min_length=6, max_length=6)]


@dataclass(frozen=True, config=STRICT)
class FidRange:
    """FID between base and adapted images of one prompt category (§4.4)."""

    place: Place
    method: Method
    subject_category: SubjectCategory
    prompt_category: PromptCategory
    fid: PrintedRange


@dataclass(frozen=True, config=STRICT)
class AdapterGroup:
    """Adapters of a method, a subject category, or both; None stands for all."""

    method: Method | None = None
    subject_category: SubjectCategory | None = None


@dataclass(frozen=True, config=STRICT)
class Order:
    """A strict order that the paper claims, smallest first; perhaps within each subject category apart."""

    id: Key
    place: Place
    quantity: Literal["e", "fid"]
    ascending: Annotated[tuple[AdapterGroup, ...], _keyed("method", "subject_category"), Field(min_length=2)]
    within_each_subject_category: bool = False


@dataclass(frozen=True, config=STRICT)
class ComparedGroup:
    """One side of a comparison: adapters of a subject category (all methods), prompts, and the printed mean."""

    name: Key
    subject_category: SubjectCategory
    prompts: Literal["people", "non-people", "non-target"]
    mean: Printed


@dataclass(frozen=True, config=STRICT)
class Hypothesis:
    """A hypothesis: orders are group names, smallest mean first. U, sample and effect sizes are not printed.

    `verdict` is the paper's own; `stated` means that no test is printed, so there is no p.
    """

    id: Literal["H1", "H2", "H3"]
    place: Place
    predicts: Text
    quantity: Literal["e_sem", "e"]
    groups: Annotated[tuple[ComparedGroup, ...], _keyed("name")]
    predicted: tuple[Key, ...]
    found: tuple[Key, ...]
    verdict: Literal["rejected", "confirmed", "stated"]
    test: Text | None = None
    p: Printed | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        means = {group.name: group.mean.value for group in self.groups}
        _once_each(list(self.predicted), list(means))
        if list(self.found) != sorted(means, key=lambda name: means[name]):
            raise ValueError("found is not the order of the groups' means")
        if not (self.verdict == "stated") == (self.test is None) == (self.p is None):
            raise ValueError("a verdict goes with a test and its p, `stated` with neither")
        return self


@dataclass(frozen=True, config=STRICT)
class Claim:
    """What the paper says without a number, in raymap's words."""

    id: Key
    place: Place
    says: Text


@dataclass(frozen=True, config=STRICT)
class Reading:
    """One side of a discrepancy: where, what is said there, and the printed numbers it rests on."""

    place: Place
    says: Text
    printed: tuple[Text, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Discrepancy:
    """Passages of the paper that do not fit together, and what that means for a comparison."""

    id: Key
    readings: Annotated[tuple[Reading, ...], Field(min_length=2)]
    note: Text


@dataclass(frozen=True, config=STRICT)
class Paper:
    """All that the paper publishes about its results."""

    title: Text
    author: Text
    setup: Setup
    noise_floor: FloorFigures
    table1: Table1
    table2: Table2
    category_means: CategoryMeans
    table3: Table3
    fid: Annotated[tuple[FidRange, ...], _keyed("method", "subject_category", "prompt_category")]
    orders: Annotated[tuple[Order, ...], _keyed("id")]
    hypotheses: Annotated[tuple[Hypothesis, ...], _keyed("id", covering=["H1", "H2", "H3"])]
    claims: Annotated[tuple[Claim, ...], _keyed("id")]
    not_printed: tuple[Text, ...]
    discrepancies: Annotated[tuple[Discrepancy, ...], _keyed("id")]

    @model_validator(mode="after")
    def _same_prompts(self) -> Self:
        _once_each(list(self.table2.prompts), list(set(self.table2.prompts)))
        for row in self.table3.rows:
            if row.prompt not in self.table2.prompts:
                raise ValueError(f"table3 has {row.prompt!r}, which is no prompt of table2")
        return self


def load_paper() -> Paper:
    """Return the paper's figures.

    Raises:
        InputError: the packaged file is missing or damaged.
    """
    try:
        raw = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise InputError(str(PAPER), f"cannot be read ({problem})", "reinstall raymap") from error
    return build_paper(raw, str(PAPER))


def build_paper(raw: Any, source: str) -> Paper:
    """Validate what a YAML file of figures holds; `source` names it in complaints.

    Raises:
        InputError: one line that names every key that is wrong.
    """
    try:
        return TypeAdapter(Paper).validate_python(raw)
    except ValidationError as error:
        found = [(".".join(map(str, e["loc"])), re.sub(r"^Value error, ", "", e["msg"])) for e in error.errors()]
        problem = " | ".join(f"{key}: {message}" if key else message for key, message in found)
        raise InputError(source, problem, "correct it, or reinstall raymap") from None
