"""Runs and audits from Python: the documented calls run as they are printed and do what the command line does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import raymap
from tests.commands import python
from tests.small_study import small_study

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def documented(finished: Path, study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder in which the second half of docs/python.md was run, and what it printed.

    The study is the session's own, whose finished run is there already; the audit really draws, four images per model.
    """
    folder = tmp_path_factory.mktemp("python")
    shutil.copy(study, folder / "study.yaml")
    shutil.copytree(finished, folder / "runs" / "study")
    shutil.copy(next((finished / "adapters" / "star-cup-lora").glob("*.safetensors")), folder / "my-lora.safetensors")
    (folder / "my-prompts.txt").write_text("# animals\na brown bear on snow\n# scenes\na city at night\n")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    code = "\n".join(["import polars as pl", *blocks[3:]])
    return folder, python(code, cwd=folder).splitlines()


def test_run_returns_the_finished_run(documented: tuple[Path, list[str]], finished: Path) -> None:
    folder, printed = documented
    assert printed[0] == "<run runs/study: 7 prompts × 1 adapters>"
    assert (folder / "runs" / "study" / "map.arrow").read_bytes() == (finished / "map.arrow").read_bytes()


def test_audit_returns_the_verdict_that_its_folder_holds(documented: tuple[Path, list[str]]) -> None:
    folder, printed = documented
    verdict = json.loads((folder / "runs" / "audit-my-lora" / "verdict.json").read_bytes())
    assert printed[1] == f"{verdict['decision']} {verdict['headline']}"
    shifted = {p["prompt"] for a in verdict["adapters"] for p in a["others"]["shifted_prompts"]}
    assert set(json.loads(printed[2].replace("'", '"'))) == shifted


def test_bad_input_is_an_exception_that_says_what_to_correct(documented: tuple[Path, list[str]]) -> None:
    assert "no-such-study.yaml" in documented[1][3]
    assert "give the path of a YAML study" in documented[1][3]


def test_a_study_with_another_sampler_is_refused_for_the_same_folder(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    other = small_study(tmp_path, sampler={"steps": 4, "guidance_scale": 3.0})
    with pytest.raises(raymap.InputError, match="sampler"):
        raymap.run(other, output, quiet=True)
