"""Controlled interventions: which variants of its adapters a study asks for, as names and numbers, without tensors.

A variant is an adapter of which one thing was changed: its strength, which of its weights act, in which denoising steps
it acts, or what replaces it. It is planned, drawn, scored and committed as an adapter is, under the name
`<adapter>@<family>=<level>`, which tells a worker everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator, model_validator

from raymap.errors import InputError

MARK = "@"
"""Divides a variant's name, so that no adapter of a study may have it in its own."""
REST = "rest"
"""The level of all weights that belong to none of a part's other levels."""

Part = Literal["projection", "attention", "stage", "layer", "timesteps"]
VariantFamily = Literal["dose", Part, "norm", "random", "budget"]
TIMESTEPS = ("early", "late")
Levels = Mapping[Part, tuple[str, ...]]
"""The levels into which each kind of part divides an adapter; none where it divides nothing."""


class Interventions(BaseModel):
    """The interventions that a study asks for; `all` means everything at its usual levels.

    `adapters` names adapters of the study that update weights, by default all but the controls. `dose` lists factors α
    of ΔW. `parts` lists the kinds of part that act alone. `equal_norm` scales every adapter to the norm of the smallest
    one, `random` is the number of random updates that are drawn with each adapter's norm and rank, and `equal_budget`
    cuts every adapter to as many numbers as the smallest one holds.
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

    `levels` are those into which its weights are divided, `norm` is the Frobenius norm of all of ΔW over that of the
    denoiser's attention weights, `size` is how many numbers its updates hold.
    """

    levels: Levels
    norm: float
    size: int


@dataclass(frozen=True)
class Variant:
    """An adapter with one thing changed; `alpha` scales ΔW."""

    adapter: str
    family: VariantFamily
    level: str
    alpha: float = 1.0

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        scaled = f",alpha={self.alpha:.6g}" if self.family == "norm" else ""
        return f"{self.adapter}{MARK}{self.family}={self.level}{scaled}"

    @property
    def mask(self) -> Part | None:
        """The kind of part of which one level acts alone; None where all of the adapter's weights act."""
        match self.family:
            case "projection" | "attention" | "stage" | "layer" as part:
                return part
        return None

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


def chosen(asked: Interventions, adapters: Mapping[str, Levels | None]) -> dict[str, Levels]:
    """Return the adapters that a study intervenes on, with their levels.

    Args:
        adapters: every adapter of the study but the controls; None where it updates no weight.
    """
    names = asked.adapters or adapters
    return {name: levels for name, levels in adapters.items() if levels is not None and name in names}


def check_interventions(asked: Interventions, adapters: Mapping[str, Levels | None]) -> None:
    """Check that a study's adapters can be intervened on.

    Args:
        adapters: as for `chosen`.

    Raises:
        InputError: an adapter that is not there or updates no weight, or nothing that could be drawn.
    """
    able = sorted(name for name, levels in adapters.items() if levels is not None)
    for name in asked.adapters or ():
        where = f"interventions.adapters: {name}"
        if name not in adapters:
            raise InputError(where, "is no adapter of the study", f"use {', '.join(able)}")
        if name not in able:
            raise InputError(where, "updates no weight, so there is nothing to intervene on", "leave it out")
    if not able:
        raise InputError("interventions", "no adapter of the study updates a weight", "remove the key")
    if not planned_variants(asked, adapters):
        problem = "leave no variant, because each adapter has only one of the parts that they ask for"
        raise InputError("interventions", problem, "ask for another kind, such as `dose`, or remove the key")


def planned_variants(asked: Interventions, adapters: Mapping[str, Levels | None]) -> tuple[Variant, ...]:
    """Return as many variants as a study will have; norms and sizes are unknown before the training.

    Args:
        adapters: as for `chosen`.
    """
    return variants(asked, {name: Extent(levels, 1.0, 1) for name, levels in chosen(asked, adapters).items()})


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
        wanted += [Variant(adapter, part, level) for part in asked.parts for level in extent.levels[part]]
        if asked.equal_norm:
            alpha = float(f"{norm / extent.norm:.6g}") if extent.norm else 1.0
            wanted.append(Variant(adapter, "norm", f"{norm:.4g}", alpha))
        wanted += [Variant(adapter, "random", str(seed)) for seed in range(asked.random)]
        if asked.equal_budget:
            wanted.append(Variant(adapter, "budget", str(budget)))
    return tuple(wanted)


def in_force(variant: Variant, step: int, steps: int) -> bool:
    """Return whether a variant changes the denoiser in a denoising step, counted from 0.

    `early` acts in the first half of the steps (the noisy ones; the larger half where their number is odd), `late` in
    the others.
    """
    return variant.family != "timesteps" or (step < (steps + 1) // 2) == (variant.level == "early")
