"""From the map to statistics.json: every estimate with its interval, its n and its method."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np
import polars as pl

from raymap.analysis.estimates import OverPrompts
from raymap.analysis.floor import floor_summary, identity_control
from raymap.analysis.hypotheses import hypotheses
from raymap.analysis.map import NoiseFloor, measured, with_entanglement
from raymap.analysis.measures import E_PER, E_SEM, SIGNED, E
from raymap.analysis.numerics.crossed import CONFIDENCE, Group, contrast
from raymap.analysis.read import KEY
from raymap.analysis.sensitivity import sensitivity
from raymap.analysis.shifts import shift_counts
from raymap.analysis.statistics import AdapterSummary, IdentityControl, Incomplete, Means, Statistics
from raymap.analysis.tables import by_category, by_method_and_category, method_order, ranked_prompts, regions

OVER_PROMPTS = f"{CONFIDENCE:.0%} t interval over prompts, for this one adapter"


def over_prompts(values: pl.Series) -> OverPrompts:
    """Estimate the mean of one adapter's cells, which generalises over prompts; nulls are left out."""
    cells = values.drop_nulls().to_numpy()[:, None]
    if not len(cells):
        reason = "no prompt has a complete seed"
        return {"value": None, "low": None, "high": None, "df": None, "n": 0, "method": "none", "reason": reason}
    found = contrast(cells, (Group(np.arange(len(cells))),), (Group(np.arange(1)),))
    return {
        "value": found.value, "low": found.low, "high": found.high, "n": found.prompts, "df": found.df,
        "method": "none" if found.low is None else OVER_PROMPTS,
        "reason": "one prompt has no spread" if len(cells) == 1 else found.reason,
    }  # fmt: skip


def summarize(
    cells: pl.DataFrame,
    noise: pl.DataFrame,
    tests: pl.DataFrame,
    floor: NoiseFloor,
    digest: str,
    proved: Collection[str],
) -> Statistics:
    """Return what statistics.json holds of the map and its tests.

    Args:
        cells: the map (schema MAP), controls included.
        noise: base seed pairs (schema NOISE).
        tests: each cell's p- and q-values (schema SHIFTS).
        proved: the adapters of which no image was drawn.
    """
    study = with_entanglement(measured(cells))
    control = identity_control(cells, proved)
    matched = tests.select(*KEY, "above_matched_sem", "above_matched_per")
    beside = study.join(matched, on=KEY, how="left", maintain_order="left")
    seeds = int(cells["n_seeds"].to_numpy().max(initial=0))
    return {
        "digest": digest,
        "noise_floor": floor_summary(noise, floor, seeds),
        "identity_control": control,
        "incomplete": incomplete(cells),
        "adapters": [_adapter(part, control) for part in beside.partition_by("adapter", maintain_order=True)],
        "normalization": {
            "method": "min-max over all prompts and adapters, controls left out",
            "e_sem": _range(study["e_sem"]),
            "e_per": _range(study["e_per"]),
        },
        "sensitivity": sensitivity(study),
        "table_1": by_method_and_category(study),
        "method_order": method_order(study),
        "most_fragile": ranked_prompts(study, descending=True),
        "most_robust": ranked_prompts(study, descending=False),
        "category_by_category": by_category(study),
        "regions": regions(study, floor),
        "hypotheses": hypotheses(study),
        "shifts": shift_counts(tests, study),
    }


def _range(values: pl.Series) -> list[float | None]:
    return cast(list[float | None], [values.min(), values.max()])


def incomplete(cells: pl.DataFrame) -> list[Incomplete]:
    """Return for each adapter that has such cells how many hold fewer seeds than the map's fullest cell, and which."""
    short = cells.filter(pl.col("n_seeds") < pl.col("n_seeds").max())
    grouped = short.group_by("adapter", maintain_order=True).agg(
        pl.len().alias("cells"), pl.col("n_seeds").min().alias("fewest_seeds"), pl.col("prompt_id").alias("prompts")
    )
    rows = [row | {"seeds": cells["n_seeds"].max()} for row in grouped.to_dicts()]
    return cast(list[Incomplete], rows)


def _adapter(part: pl.DataFrame, control: IdentityControl) -> AdapterSummary:
    """Return an adapter's means over non-target prompts, and how many of these lie above each floor."""
    others, targets = part.filter(~pl.col("target")), part.filter(pl.col("target"))
    first = part.row(0, named=True)

    def above(column: str) -> int | None:
        return int(others[column].sum()) if others[column].count() else None

    def below(column: str, largest: float | None) -> int | None:
        return int((others[column] <= largest).sum()) if largest is not None and others[column].count() else None

    return {
        "adapter": first["adapter"],
        "method": first["method"],
        "subject": first["subject"],
        "subject_category": first["subject_category"],
        "scope": "all prompts but those of the subject's own category",
        **_means(others),
        "above_tau_sem": above("above_tau_sem"),
        "above_tau_per": above("above_tau_per"),
        "above_matched_sem": above("above_matched_sem"),
        "above_matched_per": above("above_matched_per"),
        "below_numerical_sem": below("e_sem", control["max_e_sem"]),
        "below_numerical_per": below("e_per", control["max_e_per"]),
        "target_e_sem": cast(float | None, targets["e_sem"].mean()),
        "target_e_per": cast(float | None, targets["e_per"].mean()),
        "target": _means(targets),
    }


def _means(part: pl.DataFrame) -> Means:
    return {
        "e_sem": over_prompts(part[E_SEM.column]),
        "e_sem_signed": over_prompts(part[SIGNED.column]),
        "e_per": over_prompts(part[E_PER.column]),
        "e": over_prompts(part[E.column]),
    }
