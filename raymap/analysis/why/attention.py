"""Reduces attention to cells beside the map's, and asks whether it shifts where meaning shifts.

A cell is a mean over seeds, layers, steps, heads, positions and tokens; every layer counts alike (paper, section 6).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa

from raymap.analysis.measures import BASIC
from raymap.analysis.numerics.ranks import rank_correlation
from raymap.analysis.read import check_columns, read_map
from raymap.analysis.why.responses import mean_over_prompts, ratio
from raymap.analysis.why.statistics import (
    AttentionControl,
    AttentionCorrelation,
    AttentionMeans,
    AttentionOfCells,
    AttentionOfRows,
    AttentionPrompt,
    AttentionSummary,
    DirectShare,
    LayerShift,
)
from raymap.store.files import as_json, files_in, local_copy, write_atomically
from raymap.store.folder import RunFolder, arrow_bytes
from raymap.store.schema import ATTENTION, ATTENTION_CELLS, ATTENTION_TOKENS, stamped
from raymap.study.methods.method import CONTROL

ALL = "all"
CELL = ("adapter", "method", "subject", "subject_category", "prompt_id", "prompt_category", "protocol")
MEASURES = ("delta", "relative", "js")
SCALE = 1e4
"""The factor by which Table 3 of the paper multiplies mean |ΔA|."""


def reduce_attention(folder: Path) -> AttentionSummary:
    """Write attention.arrow, attention_tokens.arrow, attention_cells.arrow and attention.json; return the last one.

    Raises:
        InputError: the folder has no scores of attention or no map, or they break the contract.
    """
    where = RunFolder(folder / "attention").scores
    with local_copy(where) as copy:
        files = files_in(copy, ".arrow")
        check_columns(files, ATTENTION, where)
        tables = [pa.ipc.open_file(file).read_all() for file in files]
    digest = (tables[0].schema.metadata or {}).get(b"raymap.digest", b"").decode()
    joined = pa.concat_tables(tables).unify_dictionaries()
    write_atomically(folder / "attention.arrow", arrow_bytes(joined))
    with local_copy(RunFolder(folder / "attention").features) as copy:
        tokens = [pa.ipc.open_file(file).read_all() for file in files_in(copy, ".arrow")]
    empty = stamped(ATTENTION_TOKENS, digest).empty_table()
    write_atomically(folder / "attention_tokens.arrow", arrow_bytes(pa.concat_tables([empty, *tokens])))
    rows = pl.DataFrame(joined).with_columns(pl.col(pl.Categorical).cast(pl.String))
    cells = attention_cells(rows, read_map(folder))
    stamp = stamped(ATTENTION_CELLS, digest)
    write_atomically(folder / "attention_cells.arrow", arrow_bytes(cells.to_arrow().cast(stamp)))
    found: AttentionSummary = {"digest": digest, **summarize(rows, cells)}
    write_atomically(folder / "attention.json", as_json(found))
    return found


def attention_cells(rows: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Average rows into cells (schema ATTENTION_CELLS): each class of tokens by itself, then all tokens together.

    Args:
        rows: schema ATTENTION, names as strings.
        cells: the map, whose E_sem and E_per become columns of the result.
    """
    by_class = averaged(rows, (*CELL, "tokens"))
    together = averaged(rows, CELL).with_columns(tokens=pl.lit(ALL))
    beside = cells.select("prompt_id", "prompt", "adapter", "target", "e_sem", "e_per")
    return (
        pl.concat([by_class, together.select(by_class.columns)])
        .join(beside, on=["prompt_id", "adapter"], how="inner")
        .sort("prompt_id", "adapter", "protocol", "tokens")
        .select(ATTENTION_CELLS.names)
    )


def averaged(rows: pl.DataFrame, by: tuple[str, ...]) -> pl.DataFrame:
    """Return means of `delta`, `relative` and `js` over rows of schema ATTENTION, for each key of `by`.

    All bins of steps, groups of heads and layers count alike, and so do the tokens of all classes; the classes' shares
    of the divergence add up. Sums run in the order of the rows, so equal rows give equal bits.
    """
    sums = [(pl.col(name).cast(pl.Float64) * pl.col("n_tokens")).sum().alias(name) for name in ("delta", "attention")]
    place = [name for name in ("seed", "layer", "bin", "heads", "prompt_id", "adapter", "protocol") if name not in by]
    each = rows.group_by(*by, *place, maintain_order=True).agg(
        *sums, pl.col("js").cast(pl.Float64).sum(), pl.col("n_tokens").sum()
    )
    means = each.group_by(by, maintain_order=True).agg(
        delta=(pl.col("delta") / pl.col("n_tokens")).mean(),
        attention=(pl.col("attention") / pl.col("n_tokens")).mean(),
        js=pl.col("js").mean(),
        drawn=pl.col("attention").sum() > 0,
    )
    relative = pl.when("drawn").then(pl.col("delta") / pl.col("attention"))
    return means.with_columns(relative=relative).select(*by, *MEASURES)


def summarize(rows: pl.DataFrame, cells: pl.DataFrame) -> AttentionOfRows:
    """Return what attention.json holds of rows and cells.

    Args:
        rows: schema ATTENTION, names as strings.
        cells: schema ATTENTION_CELLS.
    """
    by_layer = ("method", "protocol", "layer", "bin", "timestep", "tokens")
    layers = averaged(rows.filter(pl.col("method") != CONTROL), by_layer)
    return {
        "identity_control": identity_control(rows),
        **of_cells(cells),
        "layers": cast(list[LayerShift], layers.sort("method", "protocol", "layer", "bin", "tokens").to_dicts()),
    }


def of_cells(cells: pl.DataFrame) -> AttentionOfCells:
    """Return the part of attention.json that rests on the cells alone (schema ATTENTION_CELLS)."""
    measured = cells.filter(pl.col("method") != CONTROL)
    others = measured.filter(~pl.col("target"))
    adapters: list[AttentionMeans] = [
        {
            "adapter": str(adapter),
            "protocol": str(protocol),
            "tokens": str(tokens),
            "method": part["method"][0],
            "subject": part["subject"][0],
            "delta": mean_over_prompts(part["delta"].to_numpy()),
            "relative": mean_over_prompts(part["relative"].to_numpy()),
            "js": mean_over_prompts(part["js"].to_numpy()),
        }
        for (adapter, protocol, tokens), part in others.group_by("adapter", "protocol", "tokens", maintain_order=True)
    ]
    found = correlations(measured)
    return {
        "scope": "adapters, direct: prompts that are not of the subject's own category; correlations: all prompts",
        "adapters": adapters,
        "direct": direct_share(others),
        "correlations": found,
        "table_3": table_3(measured),
        "reading": reading(found),
    }


def identity_control(rows: pl.DataFrame) -> AttentionControl:
    """Return whether every identity control's attention was exactly the base's, and its largest values."""
    control = rows.filter(pl.col("method") == CONTROL)
    if control.is_empty():
        return {"present": False, "exact": None, "max_delta": None, "max_js": None, "rows": 0}
    delta, js = (float(control[name].to_numpy().max()) for name in ("delta", "js"))
    computed = int(control["drawn"].sum())
    exact = delta == 0 and js == 0
    return {"present": True, "exact": exact, "max_delta": delta, "max_js": js, "rows": control.height,
            "computed": computed}  # fmt: skip


def direct_share(cells: pl.DataFrame) -> list[DirectShare]:
    """Return for each adapter how much of its free-running shift it makes on the base's own latents.

    The rest comes from trajectories that have drifted apart.
    """
    found: list[DirectShare] = []
    whole = cells.filter(pl.col("tokens") == ALL)
    for (adapter,), part in whole.group_by("adapter", maintain_order=True):
        both = part.pivot("protocol", index="prompt_id", values="delta", aggregate_function="first")
        if {"free", "forced"} <= set(both.columns):
            found.append({"adapter": str(adapter), **ratio(both["forced"].to_numpy(), both["free"].to_numpy())})
    return found


def table_3(cells: pl.DataFrame) -> list[AttentionPrompt]:
    """Return the paper's Table 3 with all prompts, the most disrupted first: mean |ΔA| · 10⁴ of each adapter."""
    protocol = "free" if "free" in cells["protocol"] else "forced"  # free is the paper's, if it was measured
    rows = cells.filter(pl.col("tokens") == ALL, pl.col("protocol") == protocol)
    found: list[AttentionPrompt] = [
        {
            "prompt_id": str(prompt_id), "prompt": part["prompt"][0], "prompt_category": part["prompt_category"][0],
            "protocol": part["protocol"][0], "e_sem": cast(float | None, part["e_sem"].mean()),
            "delta_e4": {name: SCALE * delta for name, delta in part.select("adapter", "delta").iter_rows()},
        }
        for (prompt_id,), part in rows.group_by("prompt_id", maintain_order=True)
    ]  # fmt: skip
    return sorted(found, key=lambda row: (-(row["e_sem"] or 0.0), row["prompt_id"]))


def correlations(cells: pl.DataFrame) -> list[AttentionCorrelation]:
    """Return the rank correlations over prompts of attention's shift with E_sem and E_per, averaged over adapters.

    Adapters whose cells are all equal, because they are proved to shift nothing, have no ranks and are left out.
    """
    found: list[AttentionCorrelation] = []
    for (protocol, tokens), part in cells.group_by("protocol", "tokens", maintain_order=True):
        for effect in (m.name for m in BASIC):
            for measure in MEASURES:
                known = part.drop_nulls([measure, effect])
                x, y = (_wide(known, column) for column in (measure, effect))
                found.append({"protocol": str(protocol), "tokens": str(tokens), "measure": measure, "with": effect,
                              **rank_correlation(x, y)})  # fmt: skip
    return found


def _wide(cells: pl.DataFrame, column: str) -> np.ndarray:
    """Return a column as float64 (prompts, adapters), for the prompts that all adapters have."""
    wide = cells.pivot("adapter", index="prompt_id", values=column, aggregate_function="first").sort("prompt_id")
    return wide.drop_nulls().drop("prompt_id").to_numpy().astype(np.float64)


def reading(found: list[AttentionCorrelation]) -> list[str]:
    """Return what the correlations say about attention and disruption, in plain sentences."""
    lines = []
    for row in found:
        value, low, high = row["value"], row["low"], row["high"]
        if row["tokens"] == ALL and row["measure"] == "delta" and not (value is None or low is None or high is None):
            if low > 0:
                verdict = "prompts whose attention shifts more are those with more"
            elif high < 0:
                verdict = "prompts whose attention shifts more are those with less"
            else:
                verdict = "how much a prompt's attention shifts does not tell its"
            interval = f"mean rank correlation {value:.2f}, {low:.2f} to {high:.2f}"
            lines.append(f"{row['protocol']}: {verdict} {row['with'].capitalize()} ({interval}, {row['n']} prompts).")
    return lines
