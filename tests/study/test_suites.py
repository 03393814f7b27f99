"""Suites: built-in ones hold what they promise, files of all kinds mean the same, and complaints name the line."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from raymap.analysis.paper.published import load_paper
from raymap.display.text import plain, shown
from raymap.embedded.world.captioned import is_held_out
from raymap.errors import InputError
from raymap.study.file import build_study
from raymap.study.suite import CATEGORIES, PARTI, limited, read_suite
from tests.hostile_prompts import HOSTILE

HERE = Path()
KINDS = {
    "suite.txt": "# people\na man in a hat\n\n# Animals\n  a red fox  \n",
    "suite.csv": 'Category,id,Prompt\npeople,1,a man in a hat\nanimals,2,"a red fox"\n',
    "suite.tsv": "Prompt\tCategory\tChallenge\tNote\na man in a hat\tPeople\tBasic\t\na red fox\tAnimals\tBasic\tx\n",
    "suite.jsonl": '{"text": "a man in a hat", "category": "people"}\n\n'
    '{"prompt": "a red fox", "category": "animals"}\n',
    "suite.yaml": "people: [a man in a hat]\nanimals:\n  - a red fox\n",
    "list.yml": "- {prompt: a man in a hat, category: people}\n- {text: a red fox, category: animals}\n",
}


def texts(given: object) -> list[tuple[str, str]]:
    return [(p.text, p.category) for p in read_suite(given, "study.yaml", HERE)]


def test_the_papers_suite_has_the_papers_shape_and_its_named_prompts() -> None:
    paper = load_paper()
    suite = read_suite("paper", "study.yaml", HERE)
    assert dict(Counter(p.category for p in suite)) == dict(paper.setup.prompts_by_category)
    named = {row.prompt for row in (*paper.table2.most_fragile, *paper.table2.most_robust)}
    assert len(named) == 10
    quick = read_suite("quick", "study.yaml", HERE)
    for prompts in (suite, quick):
        assert named | {"a koala wearing a top hat on the moon"} <= {p.text for p in prompts}
    assert dict(Counter(p.category for p in quick)) == dict.fromkeys(CATEGORIES, 10)
    assert {(p.text, p.category) for p in quick} <= {(p.text, p.category) for p in suite}


@pytest.mark.parametrize("name", ["paper", "quick"])
def test_no_prompt_of_a_built_in_suite_nearly_repeats_another(name: str) -> None:
    """No two prompts share all their words but one, in whatever order."""
    words = [frozenset(p.text.split()) for p in read_suite(name, "study.yaml", HERE)]
    assert not [(a, b) for k, a in enumerate(words) for b in words[:k] if max(len(a - b), len(b - a)) <= 1]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_kind_of_file_means_the_same(tmp_path: Path, name: str, start: str, ending: str) -> None:
    (tmp_path / name).write_bytes((start + KINDS[name].replace("\n", ending)).encode())
    assert texts(str(tmp_path / name)) == [("a man in a hat", "people"), ("a red fox", "animals")]


def test_parti_categories_are_mapped_and_its_quotes_are_text(tmp_path: Path) -> None:
    rows = [(f"prompt {k}", name) for k, name in enumerate(PARTI)] + [('"O P E N" on a door', "Abstract")]
    lines = ["Prompt\tCategory\tChallenge\tNote", *(f"{text}\t{name.title()}\tBasic\t" for text, name in rows)]
    (tmp_path / "parti.tsv").write_text("\n".join(lines))
    found = texts(str(tmp_path / "parti.tsv"))
    assert found == [*((f"prompt {k}", to) for k, to in enumerate(PARTI.values())), ('"O P E N" on a door', "abstract")]
    assert set(PARTI.values()) <= set(CATEGORIES)


@pytest.mark.parametrize(
    ("name", "content", "line", "problem"),
    [
        ("a.txt", b"# people\na man\n# aliens\na blob\n", 3, "unknown category 'aliens'"),
        ("a.txt", b"a man\n", 1, "has no category"),
        ("a.txt", b"# people\na man\n\na man \n", 4, "is listed twice"),
        ("a.txt", "# people\na man\na caf\xe9\n".encode("latin-1"), 3, "not UTF-8"),
        ("a.txt", "# people\n".encode("utf-16"), 1, "not UTF-8"),
        ("a.csv", b'prompt,category\n"a man\nwith two lines",people\n,people\n', 4, "empty"),
        ("a.csv", b"prompt,category\na man,people\na fox\n", 3, "has no category"),
        ("a.csv", b"prompt,category\na cube,Positional\n", 2, "unknown category 'Positional'"),
        ("a.csv", b"text\na man\n", 1, "columns"),
        ("a.csv", b'prompt,category\n"' + b"a" * 200_000 + b'",people\n', 2, "field larger"),
        ("a.jsonl", b'{"prompt": "a man", "category": "people"}\n{"prompt": "a fox"}\n', 2, "has no category"),
        ("a.jsonl", b'{"prompt": "a man", "category": "people"\n', 1, "is not JSON"),
        ("a.jsonl", b'["a man"]\n', 1, "no keys"),
        ("a.jsonl", b'{"prompt": "\\ud800", "category": "people"}\n', 1, "Unicode"),
        ("a.yaml", b"people:\n  - a man\n  - 3\n", 3, "is not text"),
        ("a.yaml", b"people:\n  - a man\nanimals:\n  -\n", 4, "has no prompt"),
        ("a.yaml", b"people:\n  - a man\nstyles: oil\n", 3, "is not a list"),
        ("a.yaml", b"- {prompt: a man, category: people}\n- a fox\n", 2, "no keys"),
    ],
)  # fmt: skip
def test_a_complaint_names_the_line_and_the_remedy(
    tmp_path: Path, name: str, content: bytes, line: int, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_suite(str(tmp_path / name), "study.yaml", HERE)
    assert f"{name}, line {line}: " in str(error.value)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.yaml", "[" * 5000, "not YAML"),
        ("a.jsonl", "[" * 100_000, "not JSON"),
        ("a.md", "# people\n", "is not a suite file"),
        ("a.yaml", "people: [unclosed", "not YAML"),
        ("a.txt", "\n", "empty"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=problem):
        read_suite(str(tmp_path / name), "study.yaml", HERE)


def test_the_embedded_suite_of_the_papers_shape_adds_prompts_that_its_base_never_saw() -> None:
    small, whole = (read_suite(name, "study.yaml", HERE) for name in ("embedded", "embedded-paper"))
    assert Counter(p.category for p in whole) == Counter(p.category for p in read_suite("paper", "study.yaml", HERE))
    own = {(p.text, p.category) for p in small}
    added = {(p.text, p.category) for p in whole} - own
    assert (len(own), len(added)) == (60, 140)
    assert all(is_held_out(text) for text, _ in added)


@pytest.mark.parametrize("name", ["nowhere", "../../etc", "x" * 10_000, "\x00", "."])
def test_a_name_that_is_no_suite_is_refused(name: str) -> None:
    with pytest.raises(
        InputError,
        match=r"use one of embedded, embedded-factorial, embedded-paper, embedded-quick, paper, quick",
    ) as error:
        read_suite(name, "--suite", HERE)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["suite.txt", "suite.csv", "suite.tsv", "suite.jsonl", "suite.yaml"])
def test_hostile_prompts_are_kept_as_they_are_and_named_by_ids(tmp_path: Path, name: str) -> None:
    prompts = [p for p in HOSTILE if name == "suite.jsonl" or "\x1b" not in p]
    kinds = {
        "suite.txt": "# abstract\n" + "\n".join(prompts),
        "suite.csv": "prompt,category\n" + "\n".join(f'"{p}",abstract' for p in prompts),
        "suite.tsv": "prompt\tcategory\n" + "\n".join(f"{p}\tabstract" for p in prompts),
        "suite.jsonl": "\n".join(json.dumps({"prompt": p, "category": "abstract"}) for p in prompts),
        "suite.yaml": json.dumps({"abstract": prompts}, ensure_ascii=False),
    }
    (tmp_path / name).write_text(kinds[name], encoding="utf-8")
    found = read_suite(str(tmp_path / name), "study.yaml", HERE)
    assert [p.text for p in found] == prompts
    assert [p.id for p in found] == [f"p{k:03d}" for k in range(len(prompts))]


def test_what_is_shown_steers_no_terminal_and_fits_into_xml() -> None:
    for prompt in HOSTILE:
        safe = plain(prompt)
        assert safe.isprintable() or "\u200d" in safe
        element = ElementTree.Element("x", {"y": safe})
        assert ElementTree.fromstring(ElementTree.tostring(element)).get("y") == safe
        output = io.StringIO()
        Console(file=output, force_terminal=True, color_system="truecolor", width=200).print(
            shown(prompt), highlight=False
        )
        assert "\x1b" not in output.getvalue()
        assert len(output.getvalue().strip()) <= 80
    assert plain("🐈‍⬛ قطة") == "🐈‍⬛ قطة"
    assert plain("a\n b\ufffe\ud800c") == "a bc"
    assert shown("[red]x[/red]") == r"\[red]x\[/red]"


def test_a_limit_takes_prompts_in_turn_from_the_categories() -> None:
    suite = read_suite("quick", "study.yaml", HERE)
    few = limited(suite, 8)
    assert [p.id for p in few] == sorted(p.id for p in few)
    assert Counter(p.category for p in few) == {"people": 2, "animals": 2, "objects": 1, "scenes": 1, "styles": 1,
                                                "abstract": 1}  # fmt: skip


def test_a_study_takes_a_suite_file_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(KINDS["suite.csv"])
    raw = {"name": "x", "seeds": 2, "suite": "mine.csv", "adapters": ["a.safetensors"]}
    study = build_study(raw, "study.yaml", tmp_path)
    assert [p.text for p in study.prompts] == ["a man in a hat", "a red fox"]
