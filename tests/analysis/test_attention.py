"""The statistics of attention: classes weighed by their tokens, rank correlations as scipy's, planted shifts found."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from raymap.analysis.numerics.ranks import rank_correlation, resampled_spearman, spearman
from raymap.analysis.why.attention import attention_cells, averaged, summarize
from raymap.store.schema import ATTENTION_CELLS


def row_of(**changes: Any) -> dict[str, Any]:
    row = {
        "adapter": "cup-lora", "method": "lora", "subject": "cup", "subject_category": "object", "prompt_id": "p0",
        "prompt_category": "scenes", "seed": 0, "protocol": "free", "layer": "a", "bin": 0, "timestep": 500.0,
        "heads": 0, "tokens": "content", "n_tokens": 3, "delta": 0.0, "attention": 0.1, "js": 0.0, "drawn": True,
    }  # fmt: skip
    return row | changes


def test_classes_of_tokens_are_weighed_by_their_tokens_and_layers_alike() -> None:
    rows = pl.DataFrame(
        [
            row_of(delta=0.04, attention=0.1, js=0.01),
            row_of(delta=0.01, attention=0.7, js=0.02, tokens="bos", n_tokens=1),
            row_of(delta=0.02, attention=0.2, js=0.03, layer="b"),
            row_of(delta=0.00, attention=0.4, js=0.00, layer="b", tokens="bos", n_tokens=1),
        ]
    )
    [whole] = averaged(rows, ("adapter", "prompt_id", "protocol")).to_dicts()
    delta = ((0.04 * 3 + 0.01) / 4 + (0.02 * 3) / 4) / 2
    assert whole["delta"] == pytest.approx(delta)
    assert whole["relative"] == pytest.approx(delta / 0.25)  # mean A is one over the number of tokens
    assert whole["js"] == pytest.approx(0.03)
    parts = {row["tokens"]: row for row in averaged(rows, ("adapter", "prompt_id", "protocol", "tokens")).to_dicts()}
    assert parts["content"]["delta"] == pytest.approx(0.03)
    assert parts["content"]["relative"] == pytest.approx(0.03 / 0.15)
    assert parts["content"]["js"] + parts["bos"]["js"] == pytest.approx(0.03)


def test_the_rank_correlation_of_a_resample_is_scipys_of_its_rows() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, (30, 3)).astype(float), rng.normal(size=(30, 3))
    drawn = rng.integers(30, size=(20, 30))
    found = resampled_spearman(x, y, np.array([np.bincount(rows, minlength=30) for rows in drawn]))
    for rows, rho in zip(drawn, found, strict=True):
        assert rho == pytest.approx([stats.spearmanr(x[rows, k], y[rows, k]).statistic for k in range(3)])


def test_the_rank_correlation_is_scipy_s_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5))
    y = x + rng.normal(size=(40, 5))
    y[3] = y[4]  # ties
    expected = [stats.spearmanr(x[:, k], y[:, k]).statistic for k in range(5)]
    assert spearman(x, y) == pytest.approx(expected)
    found: Any = rank_correlation(x, y)
    assert found["value"] == pytest.approx(np.mean(expected))
    assert found["low"] < found["value"] < found["high"]
    assert (found["n"], found["adapters"]) == (40, 5)
    null: Any = rank_correlation(rng.normal(size=(40, 5)), rng.normal(size=(40, 5)))
    assert null["low"] < 0 < null["high"]
    still: Any = rank_correlation(np.column_stack([x[:, 0], np.zeros(40)]), y[:, :2])
    assert (still["adapters"], still["value"]) == (1, pytest.approx(expected[0]))


def test_statistics_of_planted_shifts() -> None:
    """Attention follows E_sem under one adapter, half of it directly; the control does not move."""
    rng = np.random.default_rng(1)
    rows, cells = [], []
    for k in range(12):
        for adapter, method in (("cup-lora", "lora"), ("identity-lora", "identity")):
            size = 0.001 * (k + 1) if method == "lora" else 0.0
            who = {"adapter": adapter, "method": method, "prompt_id": f"p{k:02d}"}
            who["prompt_category"] = "objects" if k == 11 else "scenes"
            rows += [
                row_of(**who, seed=seed, protocol=protocol, delta=factor * size, js=size / 10)
                for seed in (0, 1)
                for protocol, factor in (("free", 1.0), ("forced", 0.5))
            ]
            cells.append(
                {"prompt_id": f"p{k:02d}", "prompt": f"prompt {k}", "adapter": adapter, "target": k == 11,
                 "e_sem": size * 3, "e_per": float(rng.normal())}
            )  # fmt: skip
    frame = pl.DataFrame(rows)
    found_cells = attention_cells(frame, pl.DataFrame(cells))
    assert found_cells.columns == ATTENTION_CELLS.names
    found = summarize(frame, found_cells)
    control = found["identity_control"]
    assert (control["present"], control["exact"], control["max_delta"]) == (True, True, 0.0)
    [direct] = found["direct"]
    assert direct["value"] == pytest.approx(0.5)
    free = next(r for r in found["adapters"] if (r["protocol"], r["tokens"]) == ("free", "all"))
    assert free["delta"]["value"] == pytest.approx(0.001 * np.arange(1, 12).mean())  # the target prompt left out
    rho = {
        (r["protocol"], r["measure"], r["with"]): r["value"] for r in found["correlations"] if r["tokens"] == "all"
    }  # fmt: skip
    assert rho["free", "delta", "e_sem"] == pytest.approx(1.0)
    assert [row["prompt"] for row in found["table_3"]][:2] == ["prompt 11", "prompt 10"]
    assert found["table_3"][0]["delta_e4"]["cup-lora"] == pytest.approx(120)
    assert any("shifts more are those with more E_sem" in line for line in found["reading"])
    moved = frame.with_columns(delta=pl.col("delta") + 1e-9)
    assert summarize(moved, found_cells)["identity_control"]["exact"] is False


# A finished run's attention
