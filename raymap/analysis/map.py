"""From score rows to the entanglement map and its noise floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from raymap.analysis.measures import BASIC
from raymap.analysis.read import ADAPTER, MEASURED, PROMPT
from raymap.analysis.sensitivity import entanglement
from raymap.store.schema import MAP
from raymap.study.methods.method import CONTROL
from raymap.study.subject import OWN_CATEGORY

PERCENTILE = 0.95


@dataclass(frozen=True)
class NoiseFloor:
    """95th percentiles of what re-seeding the base does to single pairs of images; None without any (paper, eq. 12)."""

    tau_sem: float | None
    tau_per: float | None


def noise_floor(noise: pl.DataFrame) -> NoiseFloor:
    """Return the thresholds above which a shift exceeds re-seeding: 95th percentiles, linearly interpolated."""
    columns = [noise[name].cast(pl.Float64) for name in (m.column for m in BASIC)]
    return NoiseFloor(*(column.filter(column.is_finite()).quantile(PERCENTILE, "linear") for column in columns))


def finite(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose values are all finite numbers; the others count as missing."""
    return scores.filter(*(pl.col(name).is_finite() for name in MEASURED))


def entanglement_map(scores: pl.DataFrame, floor: NoiseFloor, prompts: dict[str, str]) -> pl.DataFrame:
    """Average scores over seeds into the map (schema MAP), sorted by prompt and adapter.

    E_sem is the mean of |a_adapted − a_base| (paper, eq. 3) and has the signed mean beside it; E_per is the mean LPIPS
    (eq. 10). A row with a value that is not finite counts as missing. A cell without any row, because its batch failed,
    is in the map with `n_seeds` 0 and nulls.

    Args:
        scores: as `stream_scores` returns them.
        prompts: prompt id -> text; an id that it lacks is taken for the text.
    """
    rows = scores.select(PROMPT).unique().sort("prompt_id").cast(pl.String)
    columns = scores.select(ADAPTER).unique().sort("adapter").cast(pl.String)
    names = pl.col("prompt_id").replace_strict(prompts, default=pl.col("prompt_id")) if prompts else pl.col("prompt_id")
    found = finite(scores)
    number = pl.col("prompt_id").to_physical().cast(pl.Int64) * columns.height + pl.col("adapter").to_physical()
    at = found.select(number).to_series().to_numpy()
    base, adapted, lpips = (found[name].cast(pl.Float64).to_numpy() for name in MEASURED)
    n = np.bincount(at, minlength=rows.height * columns.height)
    means = {
        name: pl.Series(np.divide(np.bincount(at, values, len(n)), n, out=np.full(len(n), np.nan), where=n > 0))
        for name, values in (("e_sem", np.abs(adapted - base)), ("e_sem_signed", adapted - base), ("e_per", lpips))
    }
    return (
        rows.with_columns(prompt=names)
        .join(columns, how="cross", maintain_order="left_right")
        .with_columns(n_seeds=pl.Series(n), **{name: mean.fill_nan(None) for name, mean in means.items()})
        .with_columns(
            target=is_target(),
            above_tau_sem=pl.col("e_sem") > pl.lit(floor.tau_sem, pl.Float64),
            above_tau_per=pl.col("e_per") > pl.lit(floor.tau_per, pl.Float64),
        )
        .select(MAP.names)
    )


def is_target() -> pl.Expr:
    """Return whether a row's prompt is in the prompt category that its subject's category counts as its own."""
    own = pl.col("subject_category").cast(pl.String).replace_strict(OWN_CATEGORY, default=None)
    return (own == pl.col("prompt_category").cast(pl.String)).fill_null(False)


def measured(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the map without its identity controls."""
    return cells.filter(pl.col("method") != CONTROL)


def with_entanglement(cells: pl.DataFrame) -> pl.DataFrame:
    """Add `entanglement` = ½(minmax(E_sem) + minmax(E_per)) to every cell (the summand of paper, eq. 11).

    The min-max range is taken over all prompts and adapters of `cells`. A measure without range counts as 0; a cell
    without seeds has no value.
    """
    return cells.with_columns(entanglement=entanglement("map"))
