"""From score rows to the entanglement map and its noise floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from raymap.errors import InputError
from raymap.store.files import files_in, local_copy, read_each
from raymap.store.schema import NOISE, SCORES
from raymap.study import OWN_CATEGORY

PERCENTILE = 0.95
CONTROL = "identity"
CELL = ("prompt_id", "prompt_category", "adapter", "method", "subject", "subject_category")


@dataclass(frozen=True)
class NoiseFloor:
    """95th percentiles of what re-seeding the base does to a single pair; None without pairs (paper, eq. 12)."""

    tau_sem: float | None
    tau_per: float | None


def read_scores(folder: Path) -> pl.DataFrame:
    """Read every `scores/*.arrow` of a run folder (schema SCORES), one row an (adapter, prompt_id, seed).

    Raises:
        InputError: no rows, columns that differ from the contract, or contradicting rows for one key.
    """
    with local_copy(folder / "scores") as copy:
        frame = read_tables(files_in(copy, ".arrow"), SCORES.names, folder / "scores")
    frame = frame.unique(maintain_order=True)
    keys = frame.select("adapter", "prompt_id", "seed")
    if keys.is_duplicated().any():
        twice = keys.filter(keys.is_duplicated()).row(0)
        raise InputError(str(folder / "scores"), f"holds two different rows for {twice}", "keep the right one")
    devices = frame.group_by("prompt_id", "seed").agg(pl.col("base_sha256").n_unique())
    if (devices["base_sha256"] > 1).any():
        raise InputError(str(folder / "scores"), "pairs one image with two different base images", "run it anew")
    return frame


def read_noise(folder: Path) -> pl.DataFrame:
    """Read a run folder's `noise.arrow` (schema NOISE), one row a pair of base seeds.

    Raises:
        InputError: a missing file, or columns that differ from the contract.
    """
    where = folder / "noise.arrow"
    content = next(read_each([where]))
    return read_tables([] if content is None else [content], NOISE.names, where)


def read_tables(sources: Sequence[Path | bytes], columns: list[str], where: Path) -> pl.DataFrame:
    """Read Arrow IPC files, or their contents, of given columns as one table.

    Raises:
        InputError: none is there, one is no Arrow file, or its columns differ; `where` names contents.
    """
    if not sources:
        raise InputError(str(where), "is not there", "give a folder that `raymap run` wrote")
    frames = []
    for source in sources:
        name = str(source if isinstance(source, Path) else where)
        try:
            frame = pl.read_ipc(source)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(name, f"is no Arrow file ({error})", "delete it and run the study again") from error
        if frame.columns != columns:
            raise InputError(name, f"has columns {frame.columns}", f"the contract asks for {columns}")
        frames.append(frame)
    return pl.concat(frames)


def noise_floor(noise: pl.DataFrame) -> NoiseFloor:
    """Return the thresholds above which a shift exceeds re-seeding: linear-interpolated 95th percentiles."""
    if noise.is_empty():
        return NoiseFloor(None, None)
    taus = [noise[c].cast(pl.Float64).quantile(PERCENTILE, "linear") for c in ("e_sem", "e_per")]
    return NoiseFloor(*taus)


def entanglement_map(scores: pl.DataFrame, floor: NoiseFloor, prompts: dict[str, str]) -> pl.DataFrame:
    """Average scores over seeds into the map (schema MAP), sorted by prompt and adapter.

    A row with a value that is not finite counts as missing. A cell that has no row, because its batch failed, is there
    with `n_seeds` 0 and nulls.

    E_sem = mean |a_adapted − a_base| (paper, eq. 3), its signed mean beside it, E_per = mean LPIPS (eq. 10).

    Args:
        prompts: prompt id -> text; an id that is not in it stands for itself.
    """
    shift = pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base").cast(pl.Float64)
    own = pl.col("subject_category").replace_strict(OWN_CATEGORY, default=None)
    names = pl.col("prompt_id").replace_strict(prompts, default=pl.col("prompt_id")) if prompts else pl.col("prompt_id")
    grid = scores.select(CELL[:2]).unique().join(scores.select(CELL[2:]).unique(), how="cross")
    finite = [pl.col(name).is_finite() for name in ("clip_base", "clip_adapted", "lpips")]
    found = (
        scores.filter(*finite)
        .group_by(CELL)
        .agg(
            e_sem=shift.abs().mean(),
            e_sem_signed=shift.mean(),
            e_per=pl.col("lpips").cast(pl.Float64).mean(),
            n_seeds=pl.len().cast(pl.Int64),
        )
    )
    return (
        grid.join(found, on=CELL, how="left")
        .with_columns(
            n_seeds=pl.col("n_seeds").fill_null(0),
            prompt=names,
            target=(own == pl.col("prompt_category")).fill_null(False),
            above_tau_sem=pl.col("e_sem") > pl.lit(floor.tau_sem, pl.Float64),
            above_tau_per=pl.col("e_per") > pl.lit(floor.tau_per, pl.Float64),
        )
        .sort("prompt_id", "adapter")
        .select(
            "prompt_id", "prompt", "prompt_category", "adapter", "method", "subject", "subject_category", "target",
            "e_sem", "e_sem_signed", "e_per", "n_seeds", "above_tau_sem", "above_tau_per",
        )
    )  # fmt: skip


def measured(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the map without its identity controls."""
    return cells.filter(pl.col("method") != CONTROL)


def with_entanglement(cells: pl.DataFrame) -> pl.DataFrame:
    """Add `entanglement` = ½(minmax(E_sem) + minmax(E_per)) to every cell (the summand of paper, eq. 11).

    The min-max range is taken over all prompts and adapters of `cells`; a column without range counts as 0.
    """

    def scaled(name: str) -> pl.Expr:
        low, high = pl.col(name).min(), pl.col(name).max()
        return pl.when(high > low).then((pl.col(name) - low) / (high - low)).otherwise(0.0)

    return cells.with_columns(entanglement=(scaled("e_sem") + scaled("e_per")) / 2)
