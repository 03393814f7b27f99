"""Prompt suites: the built-in ones, and those of users in text, YAML, CSV, TSV or JSON Lines files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict

from raymap.errors import InputError

PromptCategory = Literal["people", "animals", "objects", "scenes", "styles", "abstract"]
CATEGORIES: tuple[PromptCategory, ...] = get_args(PromptCategory)
SUITES = Path(__file__).parent / "suites"

PARTI: dict[str, PromptCategory] = {
    "artifacts": "objects",
    "arts": "styles",
    "food & beverage": "objects",
    "illustrations": "styles",
    "indoor scenes": "scenes",
    "outdoor scenes": "scenes",
    "produce & plants": "objects",
    "vehicles": "objects",
    "world knowledge": "scenes",
}
"""Categories of PartiPrompts (Yu et al. 2022, arXiv 2206.10789) -> ours, where their names differ.

World Knowledge is mostly landmarks and places.
"""

TEXT_KEYS = ("prompt", "text", "prompts")
SHOWN = 60
"""How many characters of a prompt an error shows."""


class Prompt(BaseModel):
    """One prompt of a suite; `id` is its place in the suite (`p000`, `p001`, …)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str
    category: PromptCategory


@dataclass(frozen=True)
class Entry:
    """A prompt as it was given, with the place that errors name. Text and category may be missing or of any type."""

    where: str
    text: Any
    category: Any


def read_suite(given: Any, source: str, folder: Path) -> list[Prompt]:
    """Return a suite's prompts.

    Args:
        given: the name of a built-in suite, a path relative to `folder`, or the prompts themselves.
        source: what errors call the study that gives them.
        folder: what a path is relative to.

    Raises:
        InputError: there is no such suite, its file cannot be read, a prompt is empty or listed twice, a category is
            unknown; the error names the line.
    """
    if isinstance(given, str):
        path = SUITES / f"{given}.yaml"
        if not os.path.isfile(path):  # Path.is_file raises for some strings
            path = folder / given
        if not os.path.isfile(path):
            names = ", ".join(sorted(p.stem for p in SUITES.glob("*.yaml")))
            raise InputError(f"{source}: suite", f"there is no suite {_short(given)}", f"use one of {names}, or a path")
        source, entries = str(path), list(_read(path))
    else:
        entries = list(_listed(given, source))
    if not entries:
        raise InputError(f"{source}: prompts", "is empty", "list prompts by category, as `people: [a man in a hat]`")
    prompts: dict[str, Prompt] = {}
    places: dict[str, str] = {}
    for k, entry in enumerate(entries):
        text, category = _text(entry), _category(entry)
        if text in prompts:
            problem = f"{_short(text)} is listed twice (first at {places[text]})"
            raise InputError(entry.where, problem, "remove one")
        prompts[text] = Prompt(id=f"p{k:03d}", text=text, category=category)
        places[text] = entry.where
    return list(prompts.values())


def limited(prompts: Sequence[Prompt], limit: int) -> list[Prompt]:
    """Return `limit` prompts in the suite's order; they are chosen from the categories in turn.

    Raises:
        InputError: the limit is below 1.
    """
    if limit < 1:
        raise InputError(f"--limit {limit}", "leaves no prompt", "give at least 1")
    rank: Counter[str] = Counter()
    turns = []
    for p in prompts:
        turns.append(rank[p.category])
        rank[p.category] += 1
    chosen = sorted(sorted(range(len(prompts)), key=lambda k: (turns[k], k))[:limit])
    return [prompts[k] for k in chosen]


def _text(entry: Entry) -> str:
    if entry.text is None:
        raise InputError(entry.where, "has no prompt", "give its text under `prompt`")
    if not isinstance(entry.text, str):
        raise InputError(entry.where, f"{entry.text!r} is not text", "put it in quotes")
    text = entry.text.strip()
    if not text:
        raise InputError(entry.where, "the prompt is empty", "give its text, or remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(entry.where, f"{_short(text)} is not valid Unicode", "write the character itself") from None
    return text


def _category(entry: Entry) -> PromptCategory:
    choice = f"use one of {', '.join(CATEGORIES)}"
    if entry.category is None or not str(entry.category).strip():
        raise InputError(entry.where, f"{_short(entry.text)} has no category", choice)
    name = str(entry.category).strip().casefold()
    category = next((category for category in CATEGORIES if category == name), PARTI.get(name))
    if category is None:
        raise InputError(entry.where, f"unknown category {_short(str(entry.category).strip())}", choice)
    return category


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")


def _listed(given: Any, source: str) -> Iterator[Entry]:
    """Yield prompts that are given as Python values, by category or as a list of mappings."""
    if isinstance(given, dict):
        given = [{"text": text, "category": category} for category, texts in given.items() for text in texts or ()]
    for k, value in enumerate(given if isinstance(given, list) else ()):
        where = f"{source}: prompt {k + 1}"
        yield _entry(where, value)


def _entry(where: str, value: Any) -> Entry:
    """Take text and category out of a mapping. The case of keys and columns does not matter, others are ignored."""
    if not isinstance(value, dict):
        raise InputError(where, f"{_short(str(value))} has no keys", "write {prompt: …, category: …}")
    keys = {str(key).strip().casefold(): item for key, item in value.items()}
    text = next((keys[key] for key in TEXT_KEYS if keys.get(key) is not None), None)
    return Entry(where, text, keys.get("category"))


def _read(path: Path) -> Iterator[Entry]:
    readers = {".yaml": _yaml, ".yml": _yaml, ".txt": _plain, ".csv": _table, ".tsv": _table, ".jsonl": _json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(str(path), f"is not a suite file (its suffix is {path.suffix!r})", f"use {', '.join(readers)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "give the path of a suite") from error
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}", "is not UTF-8", "save the file as UTF-8") from error
    yield from reader(content, path)


def _plain(content: str, path: Path) -> Iterator[Entry]:
    """Yield one prompt per line, below a line `# category`; empty lines are ignored."""
    category = None
    for number, line in enumerate(content.split("\n"), 1):
        where = f"{path}, line {number}"
        if line.startswith("#"):
            category = _category(Entry(where, line, line.lstrip("#")))
        elif line.strip():
            if category is None:
                raise InputError(where, f"{_short(line.strip())} has no category", "write `# people` on a line above")
            yield Entry(where, line, category)


def _table(content: str, path: Path) -> Iterator[Entry]:
    """Yield one prompt per row; the first line names the columns. CSV has quotes, TSV has none."""
    tabs = path.suffix.lower() == ".tsv"
    quoting: Any = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    rows = csv.reader(io.StringIO(content, newline=""), delimiter="\t" if tabs else ",", quoting=quoting)
    names: list[str] | None = None
    start = 1
    try:
        for row in rows:
            where, start = f"{path}, line {start}", rows.line_num + 1
            if names is None:
                names = [name.strip().casefold() for name in row]
                if "category" not in names or not set(TEXT_KEYS) & set(names):
                    problem = f"its columns are {_short(', '.join(row))}"
                    raise InputError(where, problem, "name one `prompt` and one `category`")
            elif any(value.strip() for value in row):
                yield _entry(where, dict(zip(names, row, strict=False)))
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}", f"is not a row of a table ({error})", "correct it") from error


def _json_lines(content: str, path: Path) -> Iterator[Entry]:
    for number, line in enumerate(content.split("\n"), 1):
        where = f"{path}, line {number}"
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(where, f"is not JSON ({error})", 'write {"prompt": …, "category": …}') from error
            yield _entry(where, value)


def _yaml(content: str, path: Path) -> Iterator[Entry]:
    """Yield prompts of `category: [prompts]` or of a list of mappings, read as nodes, which know their lines."""
    loader = yaml.SafeLoader(content)
    try:
        root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            for key, prompts in root.value:
                for item in _items(prompts, path):
                    yield Entry(_at(item, path), loader.construct_object(item, deep=True), key.value)
        elif root is not None:
            for item in _items(root, path):
                yield _entry(_at(item, path), loader.construct_object(item, deep=True))
    except (yaml.YAMLError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise InputError(str(path), f"is not YAML ({problem})", "correct the syntax there") from error
    finally:
        loader.dispose()


def _items(node: yaml.Node, path: Path) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
        return []
    raise InputError(_at(node, path), "is not a list of prompts", "write `people: [a man in a hat]`")


def _at(node: yaml.Node, path: Path) -> str:
    return f"{path}, line {node.start_mark.line + 1}"
