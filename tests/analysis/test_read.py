"""Scores are read in streams, and what breaks the contract is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from raymap.analysis.map import NoiseFloor, entanglement_map
from raymap.analysis.read import read_map, read_scores, stream_scores
from raymap.analysis.reduce import reduce_run
from raymap.errors import InputError
from raymap.store.files import place, write_atomically
from raymap.store.folder import arrow_bytes
from raymap.store.schema import SCORES, stamped
from raymap.testing.large_runs import shape, write_large_run
from tests.analysis.samples import sample, write

KEY = ["adapter", "prompt_id", "seed"]


def put(folder: Path, name: str, scores: pl.DataFrame) -> None:
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    data = arrow_bytes(scores.to_arrow().cast(stamped(SCORES, "digest")))
    (folder / "scores" / f"{name}.arrow").write_bytes(data)


def test_files_in_any_order_give_the_rows_sorted_and_equal_rows_once(tmp_path: Path) -> None:
    scores = sample(prompts=9)
    mixed = pl.concat([scores, scores.head(40)]).sample(fraction=1.0, shuffle=True, seed=0)
    for k, part in enumerate(np.array_split(np.arange(mixed.height), 7)):
        put(tmp_path, str(k), mixed[part.tolist()])
    found = read_scores(tmp_path)
    expected = scores.sort("prompt_id", "adapter", "seed")
    for name in (*KEY, "clip_base", "clip_adapted", "lpips", "drawn"):
        assert found[name].to_list() == expected[name].to_list(), name


def test_the_map_is_that_of_a_plain_average(tmp_path: Path) -> None:
    scores = sample(prompts=9).filter((pl.col("seed") != 2) | (pl.col("adapter") != "face-0-lora"))
    put(tmp_path, "all", scores)
    cells = entanglement_map(stream_scores(tmp_path), NoiseFloor(0.02, 0.3), {"p001": "a cup"})
    shift = pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base").cast(pl.Float64)
    plain = scores.group_by("prompt_id", "adapter").agg(
        e_sem=shift.abs().mean(), e_sem_signed=shift.mean(),
        e_per=pl.col("lpips").cast(pl.Float64).mean(), n_seeds=pl.len(),
    )  # fmt: skip
    plain = plain.sort("prompt_id", "adapter")
    for name in plain.columns:
        held = cells[name]
        assert held.to_list() == (pytest.approx(plain[name].to_list(), rel=1e-12, abs=1e-18) if held.dtype == pl.Float64
                                  else plain[name].to_list())  # fmt: skip
    assert set(cells.filter(pl.col("prompt_id") == "p001")["prompt"]) == {"a cup"}


def changed(column: str, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Add the first row once more, with another value in one column."""
    return lambda s: pl.concat([s, s.head(1).with_columns(pl.lit(value, s.schema[column]).alias(column))])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(changed("lpips", 0.5), "two different rows for .*p000", id="measure"),
        pytest.param(changed("adapted_sha256", "other"), "two different rows", id="adapted digest"),
        pytest.param(changed("device", "tpu"), "two different rows", id="device"),
        pytest.param(changed("method", "identity"), "describes 'face-0-textual_inversion' in two ways", id="method"),
        pytest.param(changed("prompt_category", "animals"), "describes 'p000' in two ways", id="prompt category"),
        pytest.param(changed("base_sha256", "other"), "two different", id="base digest"),
        pytest.param(
            lambda s: s.with_columns(
                base_sha256=pl.when(pl.col("adapter") == "face-0-lora", pl.col("seed") == 1)
                .then(pl.lit("other"))
                .otherwise("base_sha256")
            ),
            "pairs one image with two different base images",
            id="base image",
        ),
        pytest.param(lambda s: s.clear(), "holds no row", id="no row"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], problem: str
) -> None:
    scores = change(sample(prompts=6))
    half = scores.height // 2
    put(tmp_path, "a", scores.head(half))
    put(tmp_path, "b", scores.tail(scores.height - half))
    with pytest.raises(InputError, match=problem):
        read_scores(tmp_path)


def test_a_block_that_changed_its_device_has_a_base_image_of_each(tmp_path: Path) -> None:
    """The base is drawn again where the rest of a block is, to other last bits; each pair is from one device."""
    plain = sample(prompts=6)
    elsewhere = (pl.col("adapter") == "face-0-lora") & (pl.col("prompt_id") == "p001")
    moved = [pl.when(elsewhere).then(pl.lit("other")).otherwise(name).alias(name) for name in ("device", "base_sha256")]
    put(tmp_path, "a", plain.with_columns(moved))
    whole = tmp_path / "whole"
    put(whole, "a", plain)
    assert stream_scores(tmp_path).equals(stream_scores(whole))


def test_a_file_that_breaks_the_contract_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a", sample(prompts=6))
    other = tmp_path / "scores" / "b.arrow"
    for content, problem in (
        (arrow_bytes(pa.table({"adapter": ["x"]})), "has columns"),
        (arrow_bytes(sample(prompts=6).with_columns(pl.col("lpips").cast(pl.Float64)).to_arrow()), "Float64"),
        (b"no arrow", "is not an Arrow file"),
        ((tmp_path / "scores" / "a.arrow").read_bytes()[:-200], "is not an Arrow file"),
        (b"", "is not an Arrow file"),
    ):
        other.write_bytes(content)
        with pytest.raises(InputError, match=rf"{re.escape(str(other))}.*{problem}"):
            read_scores(tmp_path)


def test_names_that_are_missing_are_refused(tmp_path: Path) -> None:
    scores = sample(prompts=6)
    for column in ("adapter", "prompt_id", "seed"):
        (tmp_path / column / "scores").mkdir(parents=True)
        lacking = scores.with_columns(pl.when(pl.col("seed") > 0).then(column).alias(column)).to_arrow()
        nullable = pa.schema([pa.field(f.name, f.type) for f in SCORES])
        (tmp_path / column / "scores" / "a.arrow").write_bytes(arrow_bytes(lacking.cast(nullable)))
        with pytest.raises(InputError, match="without"):
            read_scores(tmp_path / column)


def test_a_repeated_reduction_writes_the_same_bytes(tmp_path: Path) -> None:
    folder = write(tmp_path, sample(prompts=12))
    files = [folder / name for name in ("map.arrow", "shifts.arrow", "statistics.json")]
    reduce_run(folder)
    before = [path.read_bytes() for path in files]
    reduce_run(folder)
    assert [path.read_bytes() for path in files] == before
    assert read_map(folder)["prompt_id"].is_sorted()


def test_a_run_folder_at_a_url_is_reduced_to_the_same_files(tmp_path: Path) -> None:
    local = write(tmp_path, sample(prompts=6))
    remote = place("memory://raymap-statistics/run")
    for path in (local / "scores" / "all.arrow", local / "noise.arrow"):
        write_atomically(remote / path.relative_to(local).as_posix(), path.read_bytes())
    assert reduce_run(remote) == reduce_run(local)
    for name in ("map.arrow", "shifts.arrow", "statistics.json"):
        assert (remote / name).read_bytes() == (local / name).read_bytes()


def test_a_large_invented_run_keeps_the_contract(tmp_path: Path) -> None:
    prompts, adapters = shape(2_000)
    assert write_large_run(tmp_path, 2_000) == prompts * adapters * 10
    statistics = reduce_run(tmp_path)
    assert read_map(tmp_path).height == prompts * adapters
    assert statistics["identity_control"]["exact"]
    assert {a["e_sem"]["value"] for a in statistics["adapters"] if a["method"] == "textual_inversion"} == {0.0}
