"""Invented score rows, in which Textual Inversion is the identity and Custom Diffusion moves most; their run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from raymap.store.folder import arrow_bytes
from raymap.store.schema import NOISE, SCORES, stamped
from raymap.study.suite import CATEGORIES


def scores_of(
    values: np.ndarray, base: np.ndarray, lpips: np.ndarray, subjects: list[tuple[str, str, str]]
) -> pl.DataFrame:
    """Return score rows of adapted cosines `values` (P, A, K), base cosines (P, K) and LPIPS (P, A, K).

    Each adapter is given as (method, subject, category).
    """
    held: list[dict[str, Any]] = []
    for p, a, k in np.ndindex(values.shape):
        method, subject, category = subjects[a]
        held.append(
            {
                "adapter": f"{subject}-{method}", "method": method, "subject": subject, "subject_category": category,
                "prompt_id": f"p{p:03d}", "prompt_category": CATEGORIES[p % 6], "seed": k,
                "clip_base": base[p, k], "clip_adapted": values[p, a, k], "lpips": lpips[p, a, k],
                "base_sha256": f"{p}-{k}", "adapted_sha256": f"{p}-{a}-{k}", "drawn": True, "device": "cpu",
            }
        )  # fmt: skip
    table = pa.Table.from_pylist(held, SCORES)
    return pl.DataFrame(pl.from_arrow(table))


def write(folder: Path, scores: pl.DataFrame, pairs: int = 3) -> Path:
    """Write a run folder of given scores, with invented seed pairs."""
    rng = np.random.default_rng(9)
    (folder / "scores").mkdir(parents=True)
    (folder / "scores" / "all.arrow").write_bytes(arrow_bytes(scores.to_arrow().cast(stamped(SCORES, "digest"))))
    prompts = scores.select("prompt_id", "prompt_category").unique().sort("prompt_id")
    noise = [
        {"prompt_id": p, "prompt_category": c, "seed_a": k, "seed_b": k + 1,
         "e_sem": abs(rng.normal(0, 0.03)), "e_per": rng.uniform(0.3, 0.7)}
        for p, c in prompts.iter_rows() for k in range(pairs)
    ]  # fmt: skip
    (folder / "noise.arrow").write_bytes(arrow_bytes(pa.Table.from_pylist(noise, stamped(NOISE, "digest"))))
    return folder


def sample(prompts: int = 24, seeds: int = 4, scale: float = 0.02) -> pl.DataFrame:
    """Return scores of two subjects per category under three methods."""
    rng = np.random.default_rng(6)
    kinds = [
        (method, f"{category}-{k}", category)
        for method in ("textual_inversion", "lora", "custom_diffusion")
        for category in ("face", "object", "style")
        for k in range(2)
    ]
    base = rng.normal(0.25, 0.02, (prompts, seeds))
    sizes = np.array([{"textual_inversion": 0.0, "lora": 1.0, "custom_diffusion": 2.0}[m] for m, _, _ in kinds])
    shift = scale * sizes[:, None] * rng.normal(0, 1, (prompts, len(kinds), seeds))
    lpips = np.abs(rng.normal(0.3, 0.05, shift.shape)) * (sizes[:, None] > 0)
    return scores_of(base[:, None] + shift, base, lpips, kinds)


def control(scores: pl.DataFrame, rounding: float = 0.0) -> pl.DataFrame:
    """Return the scores with those of an identity control, whose cosines differ by `rounding`."""
    names = {"adapter": "identity-lora", "method": "identity", "subject": "none", "subject_category": "control"}
    null = scores.filter(pl.col("adapter") == "face-0-lora").with_columns(
        **{column: pl.lit(name) for column, name in names.items()},
        clip_adapted=pl.col("clip_base") + pl.lit(rounding, pl.Float32), lpips=pl.lit(0.0, pl.Float32),
    )  # fmt: skip
    return pl.concat([scores, null.select(scores.columns)])
