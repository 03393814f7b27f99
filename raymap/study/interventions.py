"""Controlled interventions: which variants of its adapters a study asks for, as names and numbers, without tensors.

A variant is an adapter with one thing changed: how strong it is, which of its weights are in force, when it is in
force, or what it is replaced by. It is planned, drawn, scored and committed as adapters are, under the name
`<adapter>@<family>=<level>`, which tells a worker all that it needs to know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator, model_validator

MARK = "@"
"""Separates the adapter in a variant's name; no adapter's own name may hold it."""
REST = "rest"
"""The level for weights that belong to no other level of a family."""

Part = Literal["projection", "attention", "stage", "layer", "timesteps"]
Family = Literal["dose", Part, "norm", "random", "budget"]
MASKS: tuple[Part, ...] = ("projection", "attention", "stage", "layer")
TIMESTEPS = ("early", "late")
STAGES = ("down_blocks", "mid_block", "up_blocks")

_LAYER = r"unet\.(?P<layer>.+\.(?P<attention>attn[12]))\."
_PROJECTION = re.compile(_LAYER + r"(?P<to>to_(?:q|k|v|out))\b.*")


class Interventions(BaseModel):
    """The interventions that a study asks for; `all` means everything at its usual levels.

    `adapters` restricts them to some of the study's adapters; by default they are all that update weights, controls
    excepted. `dose` lists factors α of ΔW. `parts` puts single parts of an adapter in force. `equal_norm` scales every
    adapter to the norm of the smallest one. `random` is how many random updates of an adapter's norm and rank are drawn
    instead of it. `equal_budget` reduces every adapter to as many numbers as the smallest one holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapters: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    dose: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()
    parts: tuple[Part, ...] = ()
    equal_norm: bool = False
    random: Annotated[StrictInt, Field(ge=0)] = 0
    equal_budget: bool = False

    @model_validator(mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        if value != "all":
            return value
        dose = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]
        return {"dose": dose, "parts": get_args(Part), "equal_norm": True, "random": 2, "equal_budget": True}

    @field_validator("adapters", "dose", "parts")
    @classmethod
    def _once(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value and len(set(value)) < len(value):
            raise ValueError(f"{next(v for v in value if value.count(v) > 1)!r} is listed twice; remove one")
        return value

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.dose or self.parts or self.equal_norm or self.random or self.equal_budget):
            raise ValueError("asks for nothing; write `interventions: all`, or give `dose`, `parts`, …")
        return self


@dataclass(frozen=True)
class Extent:
    """How much of a base an adapter changes.

    `weights` are the names of the updated weights. `norm` is the Frobenius norm of all of ΔW over that of the
    denoiser's attention weights. `size` is how many numbers the updates hold.
    """

    weights: frozenset[str]
    norm: float
    size: int


@dataclass(frozen=True)
class Variant:
    """An adapter with one thing changed; `alpha` scales ΔW."""

    adapter: str
    family: Family
    level: str
    alpha: float = 1.0

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        scaled = f",alpha={self.alpha:.6g}" if self.family == "norm" else ""
        return f"{self.adapter}{MARK}{self.family}={self.level}{scaled}"

    @classmethod
    def parse(cls, name: str) -> Variant:
        """Return the variant of this name.

        Raises:
            ValueError: it is not the name of a variant.
        """
        match = re.fullmatch(rf"(.+){MARK}(\w+)=([^,=]+)(?:,alpha=([^,=]+))?", name)
        if match is None or match[2] not in (*get_args(Part), "dose", "norm", "random", "budget"):
            raise ValueError(f"{name!r} is not the name of a variant")
        family: Any = match[2]
        alpha = float(match[3]) if family == "dose" else float(match[4] or 1)
        return cls(match[1], family, match[3], alpha)

    def only(self, weights: Collection[str]) -> frozenset[str] | None:
        """Return which of the adapter's weights are in force; None means all of them."""
        if self.family not in MASKS:
            return None
        return frozenset(name for name in weights if level_of(self.family, name) == self.level)


def level_of(part: Family, weight: str) -> str:
    """Return the level of a part to which a weight (`unet.….weight`) belongs.

    An attention weight has a projection (`attn2.to_k`; attn1 is self-attention, attn2 cross-attention), an attention
    (`attn2`) and a layer (`down_blocks.0.….attn2`). Every weight of the denoiser has a stage. All others belong to
    `rest`.
    """
    if part == "stage":
        component, _, rest = weight.partition(".")
        stage = rest.partition(".")[0]
        return stage if component == "unet" and stage in STAGES else REST
    match = _PROJECTION.fullmatch(weight)
    if match is None:
        return REST
    return f"{match['attention']}.{match['to']}" if part == "projection" else match[part]


def is_attention(weight: str) -> bool:
    """Return whether a weight is an attention projection of the denoiser."""
    return _PROJECTION.fullmatch(weight) is not None


def levels(part: Part, weights: Collection[str]) -> tuple[str, ...]:
    """Return the levels into which a part divides an adapter; none if a single level would hold all of it."""
    if part == "timesteps":
        return TIMESTEPS
    divided = {level_of(part, name) for name in weights}
    return tuple(sorted(divided)) if len(divided) > 1 else ()


def variants(asked: Interventions, extents: Mapping[str, Extent]) -> tuple[Variant, ...]:
    """Return the variants that a study asks for, adapter by adapter.

    Args:
        asked: the study's `interventions`.
        extents: adapter -> its extent, for the adapters that are intervened on.
    """
    norm = min((extent.norm for extent in extents.values()), default=0.0)
    budget = min((extent.size for extent in extents.values()), default=0)
    wanted: list[Variant] = []
    for adapter, extent in extents.items():
        wanted += [Variant(adapter, "dose", f"{dose:g}", dose) for dose in asked.dose]
        wanted += [Variant(adapter, part, level) for part in asked.parts for level in levels(part, extent.weights)]
        if asked.equal_norm:
            alpha = float(f"{norm / extent.norm:.6g}") if extent.norm else 1.0
            wanted.append(Variant(adapter, "norm", f"{norm:.4g}", alpha))
        wanted += [Variant(adapter, "random", str(seed)) for seed in range(asked.random)]
        if asked.equal_budget:
            wanted.append(Variant(adapter, "budget", str(budget)))
    return tuple(wanted)


def in_force(variant: Variant, step: int, steps: int) -> bool:
    """Return whether a variant changes the denoiser in a denoising step, counted from 0.

    `early` is in force in the first half of the steps, which are the noisier ones, and `late` in the second. If the
    number of steps is odd, the first half is the larger one.
    """
    return variant.family != "timesteps" or (step < (steps + 1) // 2) == (variant.level == "early")
