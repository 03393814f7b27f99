"""A study with judges of another package, whole: installed as any package is, run by the real command and real Ray."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from raymap import open_run
from tests.commands import Ended, finish, raymap_command
from tests.judging import example_module, install_example, near
from tests.refusals import Call, refused
from tests.small_study import small_study

PROMPTS = {
    "objects": ["a red car on a street"],
    "scenes": ["a blue house at night"],
    "animals": ["a dog in green grass"],
}
JUDGES = ["palette", "named-colour", "blurred-rms"]


def run_where(packages: Path, study: Path, output: Path) -> str:
    """Run a study by the real command where a folder of packages is installed, and return what it printed."""
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = raymap_command("run", study, "--output", output)
    return finish(command, env=os.environ | {"PYTHONPATH": path}).stdout


def use(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder of packages count as installed in this process."""
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.delitem(sys.modules, "my_judges", raising=False)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_example(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def study_of(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A study of one LoRA that is there already: three prompts, two seeds, all images kept."""

    def write(**changes: Any) -> Path:
        adapters = [{"path": str(finished / "adapters" / "star-cup-lora"), "name": "cup"}]
        known = {"subjects": None, "methods": None, "adapters": adapters, "prompts": PROMPTS, "judges": JUDGES}
        return small_study(tmp_path_factory.mktemp("study"), **known | changes)

    return write


@pytest.fixture(scope="module")
def judged(study_of: Callable[..., Path], packages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder, and what the command printed."""
    output = tmp_path_factory.mktemp("judged") / "run"
    return output, run_where(packages, study_of(), output)


def image(run: Path, adapter: str, prompt_id: str, seed: int) -> np.ndarray:
    return np.asarray(Image.open(run / "images" / adapter / prompt_id / f"{seed}.png"))[None]


def judged_rows(run: Path) -> pl.DataFrame:
    return pl.concat([pl.read_ipc(path) for path in sorted((run / "judged").glob("*.arrow"))])


def test_each_row_is_what_the_judge_says_of_the_kept_images(judged: tuple[Path, str]) -> None:
    run, guide = judged[0], example_module()
    prompts = {p["id"]: p["text"] for p in yaml.safe_load((run / "study.yaml").read_text())["prompts"]}
    palette, named = guide.Palette("cpu"), guide.NamedColour("cpu")
    rows = judged_rows(run)
    assert rows.height == 3 * (2 * 3 * 2 + 3)  # judges × (adapters × prompts × seeds + seed pairs)
    for row in rows.filter(pl.col("judge") != "blurred-rms").iter_rows(named=True):
        base = image(run, "base", row["prompt_id"], row["seed"])
        adapter, seed = (row["adapter"], row["seed"]) if row["seed_b"] is None else ("base", row["seed_b"])
        other = image(run, adapter, row["prompt_id"], seed)
        if row["judge"] == "palette":
            expected = near(None, None, palette.distances(base, other)[0])
        else:
            text = [prompts[row["prompt_id"]]]
            expected = near(named.scores(text, base)[0], named.scores(text, other)[0], None)
        assert (row["value_base"], row["value_adapted"], row["value"]) == expected, row
    moved = rows.filter(pl.col("adapter") == "cup", pl.col("judge") != "named-colour")
    assert (moved["value"] > 0).all()


def test_the_identity_control_is_exactly_zero_for_every_judge(judged: tuple[Path, str]) -> None:
    control = judged_rows(judged[0]).filter(pl.col("adapter") == "identity-lora")
    assert control.height == 3 * 6
    assert (control["value"].drop_nulls() == 0).all()
    assert control["value_base"].equals(control["value_adapted"])
    assert all(j["largest_control"] == 0 for j in open_run(judged[0]).statistics["judged"]["judges"])


def test_map_statistics_record_page_and_terminal_name_the_judges(judged: tuple[Path, str]) -> None:
    run, printed = judged
    opened, names = open_run(run), sorted(JUDGES)
    assert opened.judged["judge"].unique().sort().to_list() == names
    assert opened.judged.height == 3 * 2 * 3
    statistics = opened.statistics["judged"]
    assert [(j["judge"], j["kind"], j["version"]) for j in statistics["judges"]] == [
        ("blurred-rms", "pair", "1"), ("named-colour", "prompt", "1"), ("palette", "pair", "1"),
    ]  # fmt: skip
    assert [(a["judge"], a["adapter"]) for a in statistics["adapters"]] == [(name, "cup") for name in names]
    assert yaml.safe_load((run / "study.yaml").read_text())["judges"] == names
    assert json.loads((run / "run.json").read_text())["judges"] == dict.fromkeys(names, "1")
    page = (run / "report" / "index.html").read_text()
    assert "Other judges" in page
    for name in names:
        assert f'"judge:{name}"' in page
        assert f"{name}: cup " in printed


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.arrow"))}


def test_a_resumed_run_ends_with_the_same_bytes(
    judged: tuple[Path, str], study_of: Callable[..., Path], packages: Path, tmp_path: Path
) -> None:
    """One unit was not committed, of another the judges' rows are damaged: both are drawn again, and nothing else."""
    output = tmp_path / "run"
    shutil.copytree(judged[0], output)
    lines = (output / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    left = json.loads(lines[-1])
    assert (left["block"], left["adapter"], len(lines)) != (0, "cup", 6)
    (output / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))
    damaged = output / "judged" / "00000-cup.arrow"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    run_where(packages, study_of(), output)
    assert files(output) == files(judged[0])
    assert json.loads((output / "run.json").read_text())["sessions"][-1]["drawn"] == 4 + left["rows"]
    again = {(entry["block"], entry["adapter"]) for entry in map(json.loads, (output / "ledger.jsonl").open())}
    assert len(again) == len(lines)


def test_a_run_is_not_continued_with_other_judges_or_versions(
    judged: tuple[Path, str], finished: Path, study: Path, study_of: Callable[..., Path], packages: Path,
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    use(packages, monkeypatch)
    before = files(judged[0])
    whole = "blurred-rms (version 1), named-colour (version 1), palette (version 1)"
    for judges, asked in ((None, "none"), (["palette"], "palette (version 1)")):
        names = (
            f"{whole} there, {asked} in the study",
            "give another --output",
            f"write `judges: [{', '.join(sorted(JUDGES))}]`",
        )
        refused(call, "run", study_of(judges=judges), "--output", judged[0], names=names)
    unjudged = small_study(tmp_path, **yaml.safe_load(study.read_text()) | {"judges": ["palette"]})
    refused(call, "run", unjudged, "--output", finished, names=("none there, palette (version 1) in the study",))
    newer = install_example(tmp_path / "newer")
    code = (newer / "my_judges.py").read_text()
    (newer / "my_judges.py").write_text(code.replace('version = "1"', 'version = "2"', 1))
    use(newer, monkeypatch)
    refused(call, "run", study_of(), "--output", judged[0], names=("palette (version 2) in the study",))
    assert files(judged[0]) == before


def test_without_judges_no_file_mentions_them(finished: Path) -> None:
    assert not (finished / "judged").exists()
    assert not (finished / "judged.arrow").exists()
    for name in ("study.yaml", "run.json", "statistics.json"):
        assert not {"judges", "judged"} & yaml.safe_load((finished / name).read_text()).keys(), name
    assert b"judged" not in (finished / "ledger.jsonl").read_bytes()


def test_an_audit_takes_judges_too_and_says_so_before_it_starts(
    finished: Path, packages: Path, tmp_path: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(packages, monkeypatch)
    adapter, output = finished / "adapters" / "star-cup-lora", tmp_path / "run"
    args = ("audit", "--adapter", adapter, "--dry-run", "--output", output, "--set")
    assert "also judged by blurred-rms, palette" in " ".join(
        command(*args, "judges=[palette, blurred-rms]").out.split()
    )
    ended = command(*args, "judges=[pallete]")
    assert ended.code == 2
    assert (
        "judges: pallete: is no judge that is installed here; use one of blurred-rms, named-colour, palette"
        in ended.err
    )
    assert not output.exists()
