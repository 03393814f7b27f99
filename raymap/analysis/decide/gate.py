"""The gate of an audit: limits that a user sets, and which adapters and prompts exceed them.

A prompt counts as *shifted* under an adapter if, in E_sem or in E_per, its cell of the map is above the threshold τ of
the noise floor and, if the test can tell a single prompt apart, its q-value is at most 5 %. The test can do that if its
least possible p-value times the number of cells is at most 5 %. Otherwise no cell can pass Benjamini-Hochberg on its
own, and τ alone decides. τ is a percentile of single seed pairs, so a mean over seeds seldom reaches it by re-seeding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from raymap.analysis.decide.limits import AuditLimits
from raymap.analysis.map import measured
from raymap.analysis.measures import BASIC, E_SEM
from raymap.analysis.numerics.exchange import least_matching_p, least_rank_sum_p
from raymap.analysis.read import KEY
from raymap.analysis.shifts import FDR
from raymap.analysis.statistics import AdapterSummary

WORST = 10
"""How many prompts are named when a mean exceeds its limit."""


@dataclass(frozen=True)
class Offender:
    """A prompt that is named because a limit was exceeded: its cell's values, and the measures in which it shifted."""

    prompt_id: str
    prompt: str
    e_sem: float | None
    e_per: float | None
    shifted_in: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """One adapter against one limit.

    `value` is over `of` prompts; it is None if nothing was measured, which does not pass.
    """

    adapter: str
    criterion: str
    limit: float
    value: float | None
    of: int
    offenders: tuple[Offender, ...]

    @property
    def passed(self) -> bool:
        return self.value is not None and self.value <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as a JSON summary holds it."""
        return {"passed": self.passed, **asdict(self)}


def shifted(cells: pl.DataFrame, tests: pl.DataFrame, noise: pl.DataFrame) -> pl.DataFrame:
    """Return the non-target cells without controls, with `shifted_…` and `tested_…` for E_sem and E_per.

    Args:
        cells: the map (schema MAP).
        tests: each cell's p- and q-values (schema SHIFTS).
        noise: base seed pairs (schema NOISE); how many a prompt has decides what the test of E_per can tell.
    """
    pairs = noise.group_by("prompt_id").agg(pl.len().alias("pairs"))
    found = (
        measured(cells)
        .filter(~pl.col("target"))
        .join(tests, on=KEY, how="left", maintain_order="left")
        .join(pairs, on="prompt_id", how="left", maintain_order="left")
        .with_columns(pl.col("pairs").fill_null(0))
    )
    sizes = found.select("n_seeds", "pairs").rows()
    least_p = {"sem": [least_matching_p(k) for k, _ in sizes], "per": [least_rank_sum_p(k, n) for k, n in sizes]}
    columns = []
    for name, values in least_p.items():
        least = pl.Series(values, dtype=pl.Float64)
        q, above = pl.col(f"q_{name}"), pl.col(f"above_tau_{name}").fill_null(False)
        tested = q.is_not_null() & (least * q.count().over("adapter") <= FDR)
        columns += [
            tested.alias(f"tested_e_{name}"),
            (above & (~tested | (q <= FDR))).alias(f"shifted_e_{name}"),
        ]
    return found.with_columns(columns)


def judge(flagged: pl.DataFrame, adapters: Sequence[AdapterSummary], limits: AuditLimits) -> tuple[Verdict, ...]:
    """Hold every adapter against every limit that is set.

    Args:
        flagged: what `shifted` returned.
        adapters: the entries of statistics.json, whose `e_sem` and `e_per` are checked against the limits.
    """
    verdicts = []
    for adapter in adapters:
        cells = flagged.filter(pl.col("adapter") == adapter["adapter"])
        for name, limit in limits.given.items():
            value: float | None
            if name == "prompts":
                known = cells.drop_nulls([m.column for m in BASIC])
                named = known.filter(pl.col("shifted_e_sem") | pl.col("shifted_e_per"))
                value, of = (named.height if known.height else None), known.height
                named = named.sort("e_sem", "prompt_id", descending=[True, False])
            else:
                mean = adapter["e_sem"] if name == E_SEM.name else adapter["e_per"]
                value, of = mean["value"], mean["n"]
                named = cells.drop_nulls(name).sort(name, "prompt_id", descending=[True, False]).head(WORST)
            exceeded = value is not None and value > limit
            offenders = tuple(map(_offender, named.to_dicts())) if exceeded else ()
            verdicts.append(Verdict(adapter["adapter"], name, limit, value, of, offenders))
    return tuple(verdicts)


def _offender(cell: dict[str, Any]) -> Offender:
    shifted_in = tuple(m.name for m in BASIC if cell[f"shifted_{m.name}"])
    return Offender(cell["prompt_id"], cell["prompt"], cell["e_sem"], cell["e_per"], shifted_in)
