"""Controlled interventions: which variants of its adapters a study asks for. Pure: names and numbers, no tensors.

A variant is an adapter of which one thing was changed: how much of it, which of its weights, when it is in force, or
what stands in its place. It is planned, drawn, scored and committed as an adapter is, under the name
`<adapter>@<family>=<level>`, which says all that a worker needs to know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator, model_validator

MARK = "@"
"""Divides a variant's name; no adapter of a study may have it in its own."""
REST = "rest"
"""The level of a family that holds the weights that none of its other levels does."""

Part = Literal["projection", "attention", "stage", "layer", "timesteps"]
Family = Literal["dose", Part, "norm", "random", "budget"]
MASKS: tuple[Part, ...] = ("projection", "attention", "stage", "layer")
TIMESTEPS = ("early", "late")
STAGES = ("down_blocks", "mid_block", "up_blocks")

_LAYER = r"unet\.(?P<layer>.+\.(?P<attention>attn[12]))\."
_PROJECTION = re.compile(_LAYER + r"(?P<to>to_(?:q|k|v|out))\b.*")


class Interventions(BaseModel):
    """What a study intervenes on; `all` stands for everything at its usual levels.

    `adapters` are those of the study that update weights, by default all but the controls. `dose` are factors α of ΔW.
    `parts` puts parts of an adapter in force alone. `equal_norm` scales every adapter to the smallest one's norm,
    `random` is how many random updates of each adapter's norm and rank are drawn, `equal_budget` cuts every adapter to
    the numbers that the smallest one holds.
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
            raise ValueError(f"{next(v for v in value if value.count(v) > 1)!r} stands twice; delete one")
        return value

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.dose or self.parts or self.equal_norm or self.random or self.equal_budget):
            raise ValueError("asks for nothing; write `interventions: all`, or list `dose`, `parts`, …")
        return self


@dataclass(frozen=True)
class Extent:
    """How much of a base an adapter changes.

    `weights` are the names of its updates, `norm` is the Frobenius norm of all of ΔW over that of the denoiser's
    attention weights, `size` is how many numbers its updates hold.
    """

    weights: frozenset[str]
    norm: float
    size: int


@dataclass(frozen=True)
class Variant:
    """An adapter of which one thing was changed; `alpha` scales ΔW."""

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
        """Return the variant that a name stands for.

        Raises:
            ValueError: it is no variant's name.
        """
        match = re.fullmatch(rf"(.+){MARK}(\w+)=([^,=]+)(?:,alpha=([^,=]+))?", name)
        if match is None or match[2] not in (*get_args(Part), "dose", "norm", "random", "budget"):
            raise ValueError(f"{name!r} names no variant")
        family: Any = match[2]
        alpha = float(match[3]) if family == "dose" else float(match[4] or 1)
        return cls(match[1], family, match[3], alpha)

    def only(self, weights: Collection[str]) -> frozenset[str] | None:
        """Return which of the adapter's weights are in force; None is all of them."""
        if self.family not in MASKS:
            return None
        return frozenset(name for name in weights if level_of(self.family, name) == self.level)


def level_of(part: Family, weight: str) -> str:
    """Return the level of a family of masks to which a weight (`unet.….weight`) belongs.

    Attention weights have a projection (`attn2.to_k`; attn1 is self-, attn2 cross-attention), an attention (`attn2`)
    and a layer (`down_blocks.0.….attn2`); denoiser weights have a stage. All others belong to `rest`.
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
    """Return whether a weight is one of the denoiser's attention projections."""
    return _PROJECTION.fullmatch(weight) is not None


def levels(part: Part, weights: Collection[str]) -> tuple[str, ...]:
    """Return the levels into which a family of parts divides an adapter; none where one level holds all of it."""
    if part == "timesteps":
        return TIMESTEPS
    found = {level_of(part, name) for name in weights}
    return tuple(sorted(found)) if len(found) > 1 else ()


def variants(asked: Interventions, extents: Mapping[str, Extent]) -> tuple[Variant, ...]:
    """Return the variants that a study asks for, adapter by adapter.

    Args:
        extents: the adapters that are intervened on, by name.
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
    """Return whether a variant changes the denoiser in a denoising step, 0 to steps - 1.

    `early` is in force in the first half of the steps (the noisy ones; the larger half where their number is odd),
    `late` in the others.
    """
    return variant.family != "timesteps" or (step < (steps + 1) // 2) == (variant.level == "early")
