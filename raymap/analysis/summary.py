"""From the map to statistics.json: every estimate with its interval, n and method."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import polars as pl

from raymap.analysis.floor import floor_summary, identity_control
from raymap.analysis.hypotheses import hypotheses
from raymap.analysis.map import NoiseFloor, measured, with_entanglement
from raymap.analysis.measures import ALL
from raymap.analysis.numerics.crossed import CONFIDENCE, Group, contrast
from raymap.analysis.sensitivity import sensitivity
from raymap.analysis.shifts import shift_counts
from raymap.analysis.tables import by_category, by_method_and_category, method_order, ranked_prompts, regions

OVER_PROMPTS = f"{CONFIDENCE:.0%} t interval over prompts, for this one adapter"
COUNTS = ("above_tau_sem", "above_tau_per", "above_matched_sem", "above_matched_per")


def over_prompts(values: pl.Series) -> dict[str, Any]:
    """Estimate the mean of one adapter's cells, which generalises over prompts; nulls are left out.

    Returns:
        `value` (None without prompts), `low`, `high` (None with fewer than two), `n` (prompts), `df`, `method`, and the
        `reason` of what is None.
    """
    cells = values.drop_nulls().to_numpy()[:, None]
    if not len(cells):
        nothing = dict.fromkeys(("value", "low", "high", "df"))
        return nothing | {"n": 0, "method": "none", "reason": "no prompt has a complete seed"}
    found = contrast(cells, (Group(np.arange(len(cells))),), (Group(np.arange(1)),)).as_dict()
    method = "none" if found["low"] is None else OVER_PROMPTS
    return {key: found[key] for key in ("value", "low", "high", "n", "df")} | {
        "method": method, "reason": "one prompt has no spread" if len(cells) == 1 else found["reason"]
    }  # fmt: skip


def summarize(
    cells: pl.DataFrame,
    noise: pl.DataFrame,
    tests: pl.DataFrame,
    floor: NoiseFloor,
    digest: str,
    proved: Collection[str],
) -> dict[str, Any]:
    """Return what statistics.json holds.

    Args:
        cells: the map (schema MAP), controls included.
        noise: base seed pairs (schema NOISE).
        tests: each cell's p- and q-values (raymap.analysis.shifts).
        proved: adapters of which no picture was drawn.
    """
    study = with_entanglement(measured(cells))
    control = identity_control(cells, proved)
    matched = tests.select("prompt_id", "adapter", "above_matched_sem", "above_matched_per")
    beside = study.join(matched, on=["prompt_id", "adapter"], how="left", maintain_order="left")
    seeds = int(cells["n_seeds"].to_numpy().max(initial=0))
    return {
        "digest": digest,
        "noise_floor": floor_summary(noise, floor, seeds),
        "identity_control": control,
        "incomplete": incomplete(cells),
        "adapters": [_adapter(part, control) for part in beside.partition_by("adapter", maintain_order=True)],
        "normalization": {
            "method": "min-max over all prompts and adapters, controls left out",
            "e_sem": [study["e_sem"].min(), study["e_sem"].max()],
            "e_per": [study["e_per"].min(), study["e_per"].max()],
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


def incomplete(cells: pl.DataFrame) -> list[dict[str, Any]]:
    """Return, for each adapter that has them, how many cells hold fewer seeds than the map's fullest, and which."""
    short = cells.filter(pl.col("n_seeds") < pl.col("n_seeds").max())
    grouped = short.group_by("adapter", maintain_order=True).agg(
        pl.len().alias("cells"), pl.col("n_seeds").min().alias("fewest_seeds"), pl.col("prompt_id").alias("prompts")
    )
    return [row | {"seeds": cells["n_seeds"].max()} for row in grouped.to_dicts()]


def _adapter(part: pl.DataFrame, control: dict[str, Any]) -> dict[str, Any]:
    """Return an adapter's means over non-target prompts, and how many of these lie above each floor."""
    others, targets = part.filter(~pl.col("target")), part.filter(pl.col("target"))
    first = part.row(0, named=True)
    below = {
        f"below_numerical_{name}": int((others[f"e_{name}"] <= control[f"max_e_{name}"]).sum())
        if control["present"] and others[f"e_{name}"].count()
        else None
        for name in ("sem", "per")
    }
    return {
        **{key: first[key] for key in ("adapter", "method", "subject", "subject_category")},
        "scope": "all prompts but those of the subject's own category",
        **{measure.name: over_prompts(others[measure.column]) for measure in ALL},
        **{name: int(others[name].sum()) if others[name].count() else None for name in COUNTS},
        **below,
        "target_e_sem": targets["e_sem"].mean(),
        "target_e_per": targets["e_per"].mean(),
        "target": {measure.name: over_prompts(targets[measure.column]) for measure in ALL},
    }
