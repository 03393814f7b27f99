"""Names and prompts that mean harm, or are only unusual, neither break nor run anything in a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from raymap.report.export.write import FORMATS, export
from raymap.report.payload import script_json
from raymap.results import read_run
from tests.commands import Ended
from tests.report.hostile_run import IMAGE, PROMPTS, write_hostile_run

Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hostile_run(tmp_path_factory.mktemp("hostile") / "run")


def test_nothing_outside_the_report_folder_is_written(hostile: Path, command: Command) -> None:
    before = {path for path in hostile.parent.rglob("*") if "report" not in path.parts}
    written = export(read_run(hostile), FORMATS)
    assert {path.parent for path in written} == {hostile / "report"}
    assert command("show", hostile, "p000", "=1+1").code == 0
    assert len(list((hostile / "report" / "pairs").iterdir())) == 1
    assert {path for path in hostile.parent.rglob("*") if "report" not in path.parts} == before


def test_tables_keep_their_shape(hostile: Path) -> None:
    export(read_run(hostile), ("csv", "md", "latex"))
    table = pl.read_csv(hostile / "report" / "table_2.csv")
    assert set(table["prompt"]) == {text for text, _ in PROMPTS}
    lines = (hostile / "report" / "table_2.md").read_text().split("\n")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + table.height
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}
    latex = (hostile / "report" / "table_2.tex").read_text()
    assert latex.count(r"\end{table}") == 1
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


def test_the_terminal_gets_no_control_characters(hostile: Path, command: Command) -> None:
    reported = command("report", hostile)
    assert reported.code == 0, reported.err
    assert IMAGE[:20] in reported.out
    assert all(character.isprintable() or character in "\n\t" for character in reported.out)
    refused = command("show", hostile, "p000", "\x1b[31m")
    assert refused.code == 2
    assert all(character.isprintable() or character == "\n" for character in refused.err)


def test_data_in_a_script_element_cannot_end_it() -> None:
    text = script_json({"</script><!--": "\u2028\u2029&"})
    assert not set(text) & set("<>&\u2028\u2029")
    assert r"\u003c/script\u003e" in text
