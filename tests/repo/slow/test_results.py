"""docs/results.md: recomputed from committed Arrow files, verdict words with it; nothing local is collected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pytest

from raymap.results import Run
from raymap.store.files import files_in
from tests.repo.slow.reduced_runs import HOST, PERSON, PLACE, write_factorial, write_paper, write_why
from tools.results_page.__main__ import LIMIT, main, size
from tools.results_page.cost import planned
from tools.results_page.document import DOCS, PAPER, rebuild
from tools.results_page.reduced import RECOMPUTED, read_json, read_table, same, write_packed

LINES = 250


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folders `paper`, `why` and `factorial`."""
    folder = tmp_path_factory.mktemp("runs")
    write_paper(folder / "paper")
    write_why(folder / "why")
    write_factorial(folder / "factorial")
    return folder


@pytest.fixture(scope="module")
def docs(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of documents into which all were collected, the page written."""
    folder = tmp_path_factory.mktemp("docs")
    assert main(["--collect", *(str(path) for path in sorted(runs.iterdir()))], folder) == 0
    assert main([], folder) == 0
    return folder


@pytest.fixture
def own(docs: Path, tmp_path: Path) -> Path:
    """A copy of the documents to change, of the run `paper` alone."""
    folder = Path(shutil.copytree(docs, tmp_path / "docs", ignore=shutil.ignore_patterns("why", "factorial")))
    assert main([], folder) == 0
    return folder


def change(folder: Path, changed: Callable[[dict[str, object]], dict[str, object]]) -> None:
    """Change the score rows of a reduced run."""
    path = folder / "scores" / "all.arrow"
    table = read_table(path)
    write_packed(path, pa.Table.from_pylist([changed(row) for row in table.to_pylist()], table.schema))


def test_what_is_recomputed_from_a_reduced_run_is_what_the_run_held(runs: Path, docs: Path) -> None:
    held = sorted(p.relative_to(runs) for name in RECOMPUTED for p in runs.glob(f"*/{name}"))
    assert len(held) == 3 + 1 + 1 + 1
    for path in held:
        assert same(read_json(runs / path), read_json(docs / "results" / path)), path
    assert read_json(runs / "paper" / "statistics.json")["distances"]
    why = Run(docs / "results" / "why")
    assert why.interventions is not None
    assert len(why.interventions["dose"]) == 2 * 6
    assert why.attention is not None
    assert why.attention["layers"]


def test_the_page_is_whole_and_short_and_checks(docs: Path) -> None:
    page = (docs / "results.md").read_text(encoding="utf-8")
    assert main(["--check"], docs) == 0
    assert len(page.splitlines()) < LINES
    for heading in (
        "Controls first",
        "Hypotheses",
        "FID, KID and CMMD",
        "Attention",
        "Why: interventions",
        "Composition or abstractness",
        "Limits",
    ):
        assert f"\n## {heading}\n" in page
    columns = [(line[:1] == "|", line.replace("\\|", "").count("|")) for line in page.splitlines()]
    tables = [list(rows) for is_table, rows in groupby(columns, key=itemgetter(0)) if is_table]
    assert len(tables) > 12
    assert all(len(set(rows)) == 1 for rows in tables), "rows of one table have as many cells"


def test_a_changed_score_changes_the_page(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def worse(row: dict[str, object]) -> dict[str, object]:
        return row | ({"lpips": 0.9} if (row["method"], row["seed"]) == ("lora", 0) else {})

    change(own / "results" / "paper", worse)
    before = (own / "results.md").read_text(encoding="utf-8")
    assert main(["--check"], own) == 1
    assert capsys.readouterr().out.split("\n")[:2] == ["differs: paper/statistics.json", "differs: results.md"]
    assert (own / "results.md").read_text(encoding="utf-8") == before
    assert main([], own) == 0
    assert (own / "results.md").read_text(encoding="utf-8") != before
    assert main(["--check"], own) == 0


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"face": 1.0, "object": 2.0, "style": 3.0}, "The order agrees with the paper's"),
        ({"face": 3.0, "object": 2.0, "style": 1.0}, "The order differs from the paper's"),
    ],
)
def test_words_follow_the_data(own: Path, weights: dict[str, float], words: str) -> None:
    """Shifts of planted size: each category's adapters alike, styles the most or the least."""

    def planted(row: dict[str, object]) -> dict[str, object]:
        weight = weights.get(str(row["subject_category"]), 0.0) * bool(row["drawn"])
        return row | {"clip_adapted": float(str(row["clip_base"])) - 0.01 * weight, "lpips": 0.1 * weight}

    change(own / "results" / "paper", planted)
    page = rebuild(own / "results").page
    assert words in page
    expected = "agrees" if weights["style"] > weights["face"] else "differs"
    row = next(line for line in page.splitlines() if line.startswith("| E by subject category"))
    assert row.endswith(f"| {expected} |")


def test_a_control_that_is_not_zero_is_said_first(own: Path) -> None:
    change(own / "results" / "paper", lambda row: row | ({"lpips": 0.25} if row["method"] == "identity" else {}))
    assert "E_sem and E_per are up to 0 and 0.25, not 0: " in rebuild(own / "results").page


def test_nothing_local_is_collected(docs: Path, runs: Path) -> None:
    paths = [path for path in docs.rglob("*") if path.is_file()]
    held = {path: json.dumps(read_table(path).to_pydict()) for path in paths if path.suffix == ".arrow"}
    held |= {path: path.read_bytes().decode("latin-1") for path in paths if path not in held}
    assert len(held) > 20
    for path, text in held.items():
        for private in (PLACE, HOST, PERSON, str(runs)):
            assert private not in text, (path, private)
    assert not [path for path in docs.rglob("*") if path.name in ("images", "features", "adapters", "ledger.jsonl")]
    report = (docs / "results" / "paper" / "report" / "index.html").read_text(encoding="utf-8")
    assert '<script type="application/json" id="images">[]</script>' in report


def test_a_run_that_is_too_large_is_refused_and_nothing_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.results_page.__main__.LIMIT", 100_000)
    assert main(["--collect", str(runs / "paper")], tmp_path) == 2
    assert "MB, more than 0 MB" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_statistics_that_the_rows_do_not_give_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs / "paper", tmp_path / "paper"))
    held = read_json(run / "statistics.json")
    held["noise_floor"]["tau_sem"]["value"] *= 1.0001
    (run / "statistics.json").write_text(json.dumps(held), encoding="utf-8")
    assert main(["--collect", str(run)], tmp_path / "docs") == 2
    assert "differs from what the run's rows give when they are reduced again" in capsys.readouterr().err


def test_the_full_study_is_reckoned_by_its_own_plan() -> None:
    """98,000 images; an image of 50 guided steps takes 82.8 TFLOP (docs/performance.md), an A100 gives 312 at most."""
    plan = planned()
    assert plan["images"] == 200 * 10 * (45 + 3 + 1)
    assert plan["proved"] == 200 * 10 * (15 + 1)
    assert plan["drawn"] == plan["images"] - plan["proved"]
    assert plan["devices"][0]["drawing_h"] == pytest.approx(plan["drawn"] * 82.8 / (0.4 * 312) / 3600, rel=2e-3)
    assert plan["devices"][1]["drawing_h"] < plan["devices"][0]["drawing_h"]


def test_the_committed_page_is_what_the_committed_files_give() -> None:
    assert main(["--check"]) == 0


def test_what_is_committed_is_small_and_holds_no_image_but_figures() -> None:
    assert size(DOCS / "results") < LIMIT
    drawn = {path.name for path in (DOCS / "results").rglob("*.png")}
    assert drawn == {"figure_1.png", "figure_2.png"}
    assert files_in(DOCS / "results" / PAPER, ".arrow")
