"""Figures and tables of runs of any shape, in every format."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from raymap.analysis.read import KEY
from raymap.analysis.reduce import reduce_run
from raymap.report.export.write import FORMATS, export
from raymap.report.page import page, render
from raymap.results import read_run
from raymap.testing.runs import SyntheticRun, write_run
from tests.report.invented import ADAPTERS, PROMPTS, RAGGED


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run"), SyntheticRun(ADAPTERS, PROMPTS, seeds=8, side=48))
    reduce_run(folder)
    return folder


def test_figures_and_tables_are_written_in_every_format(root: Path, call: Callable[..., tuple[int, str]]) -> None:
    assert call("report", root, "--format", "png,svg,pdf", "--format", "csv", "--format", "md,latex")[0] == 0
    folder = root / "report"
    for k in (1, 2, 3):
        with Image.open(folder / f"figure_{k}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5
        assert ElementTree.parse(folder / f"figure_{k}.svg").getroot().tag.endswith("svg")
        assert (folder / f"figure_{k}.pdf").read_bytes().startswith(b"%PDF")
    statistics = json.loads((root / "statistics.json").read_text())
    table = pl.read_csv(folder / "table_1.csv")
    assert table["e_sem"].to_list() == pytest.approx([r["e_sem"]["value"] for r in statistics["table_1"]])
    assert table["e_sem_low"].to_list() == pytest.approx([r["e_sem"]["low"] for r in statistics["table_1"]])
    over = [
        ("over prompts alone" if r["subjects"] == 1 else "over prompts and subjects") for r in statistics["table_1"]
    ]
    assert table["intervals"].to_list() == over
    assert all(words in (folder / "table_1.md").read_text() for words in over)
    cells = pl.read_csv(folder / "figure_2.csv").sort(*KEY)
    assert cells["e_per"].to_list() == pytest.approx(read_run(root).cells["e_per"].to_list())
    first = statistics["table_1"][0]
    assert f"| {first['e_sem']['value']:.4f} |" in (folder / "table_1.md").read_text()
    assert (
        rf"{first['method'].replace('_', chr(92) + '_')} & {first['subject_category']} &"
        in (folder / "table_1.tex").read_text()
    )


@pytest.mark.parametrize(
    ("adapters", "prompts", "seeds"),
    [
        (RAGGED, PROMPTS[:8], 1),
        (RAGGED, PROMPTS[:1], 3),
        (RAGGED, PROMPTS[:2], 3),
        (RAGGED[2:3], PROMPTS[:8], 3),
        (RAGGED[4:], PROMPTS[:8], 3),
        (RAGGED[:1], PROMPTS[:1], 3),
    ],
    ids=["one seed", "one prompt", "two prompts", "identities only", "unknown category", "target prompts only"],
)
def test_a_run_of_any_shape_has_a_report_and_figures(tmp_path: Path, adapters: Any, prompts: Any, seeds: int) -> None:
    folder = write_run(tmp_path, SyntheticRun(adapters, prompts, seeds=seeds, side=16))
    reduce_run(folder)
    page = render(folder).read_text()
    assert "Cannot tell" in page or "by proof" in page
    assert len(export(read_run(folder), FORMATS)) == 3 * 3 + 5 + 2 + 2


def test_the_same_run_gives_the_same_page_and_files(root: Path) -> None:
    assert page(read_run(root)) == page(read_run(root))
    kinds = ("png", "svg", "pdf")
    first = {path: path.read_bytes() for path in export(read_run(root), kinds)}
    assert first == {path: path.read_bytes() for path in export(read_run(root), kinds)}
