"""The Python interface: light to import, exact, safe to show; the documented example runs as it is printed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from raymap import open_run
from raymap.analysis.reduce import reduce_run
from raymap.errors import InputError
from raymap.results import Run
from raymap.testing.scores import write_scores
from tests.commands import python

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ("<img src=x onerror=alert(1)>", "b-adapter", "\x1b[31mred")


@pytest.fixture(scope="module")
def values() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.02, (12, 3, 4)).astype(np.float32), rng.random((12, 3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(values: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("work") / "runs" / "demo"
    texts = ("<b>bold</b>", *(f"prompt {k}" for k in range(1, 12)))
    write_scores(path, *values, adapters=NAMES, texts=texts, study={"base": "embedded"})
    reduce_run(path)
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return open_run(folder)


def test_importing_raymap_is_light_and_opening_a_run_loads_neither_torch_nor_ray(folder: Path) -> None:
    code = (
        "import sys, raymap\n"
        "assert not {'torch', 'ray', 'polars', 'numpy', 'pyarrow', 'pydantic'} & sys.modules.keys()\n"
        f"run = raymap.open_run({str(folder)!r})\n"
        "run.matrix(), run.map, run.statistics, run.scores, run.noise, run.shifts, repr(run), run._repr_html_()\n"
        "assert not {'torch', 'ray', 'diffusers'} & sys.modules.keys()"
    )
    python(code)


def test_the_matrix_is_the_scores_mean_over_seeds(run: Run, values: tuple[np.ndarray, np.ndarray]) -> None:
    shift, lpips = values
    order = np.argsort(NAMES)
    expected = {"e_sem": np.abs(shift), "e_sem_signed": shift, "e_per": lpips}
    for measure, cells in expected.items():
        matrix = run.matrix(measure)
        assert matrix.values.dtype == np.float64
        assert matrix.shape == matrix.values.shape == (12, 3)
        assert np.allclose(np.asarray(matrix), cells.mean(axis=2)[:, order], atol=1e-7)
        assert matrix.adapters == tuple(sorted(NAMES)) == run.adapters
        assert matrix.prompts[0] == "<b>bold</b>"
        assert matrix.prompt_ids[3] == "p003"
    with pytest.raises(InputError, match="e_sem_signed"):
        run.matrix("entanglement")


def test_a_cell_that_was_not_measured_is_not_a_number(values: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    shift = values[0].copy()
    shift[4, 1] = np.nan
    write_scores(tmp_path / "run", shift, values[1])
    reduce_run(tmp_path / "run")
    matrix = open_run(str(tmp_path / "run")).matrix()
    assert np.argwhere(np.isnan(matrix.values)).tolist() == [[4, 1]]


def test_the_frames_are_the_folders_own(run: Run, folder: Path) -> None:
    assert run.map.equals(pl.read_ipc((folder / "map.arrow").read_bytes()))
    assert (run.scores.height, run.noise.height, run.shifts.height) == (12 * 3 * 4, 12 * 3, 12 * 3)
    assert {a["adapter"] for a in run.statistics["adapters"]} == set(NAMES)


def test_a_run_is_shown_safely(run: Run) -> None:
    tags: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            assert attrs == []

    page = run._repr_html_()
    Tags().feed(page)
    assert tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert "b-adapter" in page
    assert "12 prompts × 3 adapters" in repr(run)
    console = Console(record=True, width=200, force_terminal=True)
    with console.capture() as captured:
        console.print(run)
    assert "\x1b[31m" not in captured.get()
    assert NAMES[0] in captured.get()


def test_a_folder_without_a_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no map"):
        open_run(tmp_path)


def test_the_documented_example_runs(folder: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 6  # tests/driver/ray/test_commands.py runs the other three
    printed = python("\n".join(blocks[:3]), cwd=folder.parent.parent)
    assert "<e_sem: 12 prompts × 3 adapters>" in printed
    assert printed.splitlines()[-1] == "0.0 0"
