"""Studies from YAML: a file, or keys, go in; one validated `Study` comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    ValidationError,
)

from raymap.errors import InputError
from raymap.study.model import Study
from raymap.study.suite import limited, read_suite


def load_study(path: str | Path, overrides: Sequence[str] = (), limit: int | None = None) -> Study:
    """Read a study; paths in it are relative to its folder.

    Args:
        path: the YAML file.
        overrides: `key=value` pairs; dots in the key descend (`sampler.steps=10`), the value is YAML.
        limit: keep only that many prompts, taken in turn from the categories.

    Raises:
        InputError: one line a complaint, each naming the file, the key and what to do.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read ({error})", "give the path of a YAML study") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(str(path), f"is not YAML ({problem})", "correct the syntax there") from error
    if not isinstance(raw, dict):
        raise InputError(str(path), "holds no keys", "see docs/study.md for what a study holds")
    for pair in overrides:
        override(raw, pair)
    return build_study(raw, str(path), path.parent, limit)


def override(raw: dict[str, Any], pair: str) -> None:
    """Set a key of a study as `--set key=value` does, in place.

    Raises:
        InputError: no value, or a key below one that holds no keys.
    """
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise InputError(f"--set {pair}", "has no value", "write --set key=value")
    *parents, last = key.split(".")
    at: Any = raw
    for parent in parents:
        at = at.setdefault(parent, {})
        if not isinstance(at, dict):
            raise InputError(f"--set {pair}", f"{parent!r} is not a group of keys", "name a key that exists")
    try:
        at[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        problem = f"is not YAML ({' '.join(str(error).split())})"
        raise InputError(f"--set {pair}", problem, "correct the value") from error


def build_study(raw: dict[str, Any], source: str, folder: Path, limit: int | None = None) -> Study:
    """Validate the keys of a study; `source` names it in complaints, `folder` anchors its relative paths.

    Raises:
        InputError: one line a complaint.
    """
    raw = dict(raw)
    suite = raw.pop("suite", None)
    if (suite is None) == ("prompts" not in raw):
        raise InputError(f"{source}: prompts", "needs exactly one of `suite:` and `prompts:`", "give one")
    raw["prompts"] = read_suite(suite if suite is not None else raw["prompts"], source, folder)
    if limit is not None:
        raw["prompts"] = limited(raw["prompts"], limit)
    if isinstance(raw.get("base"), str) and (folder / raw["base"] / "model_index.json").is_file():
        raw["base"] = str(folder / raw["base"])
    for subject in raw["subjects"] if isinstance(raw.get("subjects"), list) else ():
        if isinstance(subject, dict) and isinstance(subject.get("references"), list):
            subject["references"] = [folder / str(r) for r in subject["references"]]
    if isinstance(raw.get("adapters"), list):
        entries = [a if isinstance(a, dict) else {"path": a} for a in raw["adapters"]]
        raw["adapters"] = [a | {"path": folder / str(a["path"])} if "path" in a else a for a in entries]
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise InputError(*_complaint(error, source)) from None


def _complaint(error: ValidationError, source: str) -> tuple[str, str, str]:
    lines = []
    for entry in error.errors():
        key = ".".join(str(part) for part in entry["loc"])
        message = re.sub(r"^Value error, ", "", entry["msg"])
        if entry["type"] == "extra_forbidden":
            message = "is no key of a study"
        elif entry["type"] == "missing":
            message = "is missing"
        shown = repr(entry["input"]) if not isinstance(entry["input"], dict | list | tuple | Study) else ""
        lines.append(" ".join(part for part in (f"{key}:" if key else "", message, f"(got {shown})" if shown else "")
                              if part))  # fmt: skip
    return source, " | ".join(lines), "correct it (docs/study.md lists every key)"
