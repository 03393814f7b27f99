"""Reads studies: a YAML file, or its keys, goes in; a validated `Study` comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from raymap.errors import InputError
from raymap.study.model import Study
from raymap.study.source import is_remote
from raymap.study.suite import limited, read_suite


def load_study(path: str | Path, overrides: Sequence[str] = (), limit: int | None = None) -> Study:
    """Read a study; the paths in it are relative to its folder.

    Args:
        path: the YAML file.
        overrides: `key=value` pairs; a dot in the key leads to a key inside (`sampler.steps=10`), the value is YAML.
        limit: keep only this many prompts, taken in turn from the categories.

    Raises:
        InputError: naming the file, every key with a problem, and what to do.
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
        raise InputError(str(path), "holds no keys", "see docs/study.md for the keys of a study")
    for pair in overrides:
        override(raw, pair)
    return build_study(raw, str(path), path.parent, limit)


def override(raw: dict[str, Any], pair: str) -> None:
    """Set a key of a study in place, as `--set key=value` does.

    Raises:
        InputError: the value is missing or is not YAML, or the key is inside one that cannot hold keys.
    """
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise InputError(f"--set {pair}", "has no value", "write --set key=value")
    *parents, last = key.split(".")
    at: Any = raw
    for parent in parents:
        at = at.setdefault(parent, {})
        if not isinstance(at, dict):
            raise InputError(f"--set {pair}", f"{parent!r} cannot hold keys", "give a key that exists")
    try:
        at[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        problem = f"is not YAML ({' '.join(str(error).split())})"
        raise InputError(f"--set {pair}", problem, "correct the value") from error


def build_study(raw: dict[str, Any], source: str, folder: Path, limit: int | None = None) -> Study:
    """Validate the keys of a study.

    Args:
        raw: the keys, as YAML gives them.
        source: what errors call the study, say its path.
        folder: what relative paths are relative to.
        limit: as in `load_study`.

    Raises:
        InputError: as `load_study`.
    """
    raw = dict(raw)
    suite = raw.pop("suite", None)
    if (suite is None) == ("prompts" not in raw):
        raise InputError(f"{source}: prompts", "a study has either `suite:` or `prompts:`", "give exactly one of them")
    raw["prompts"] = read_suite(suite if suite is not None else raw["prompts"], source, folder)
    if limit is not None:
        raw["prompts"] = limited(raw["prompts"], limit)
    base, weights = raw.get("base"), raw.get("weights")
    if isinstance(base, str) and ((folder / base / "model_index.json").is_file() or (folder / base).is_file()):
        raw["base"] = str(folder / base)
    if isinstance(weights, str) and "://" not in weights:
        raw["weights"] = str(folder / weights)
    for subject in raw["subjects"] if isinstance(raw.get("subjects"), list) else ():
        if isinstance(subject, dict) and isinstance(subject.get("references"), list):
            subject["references"] = [folder / str(r) for r in subject["references"]]
    if isinstance(raw.get("adapters"), list):
        entries = [a if isinstance(a, dict) else {"path": a} for a in raw["adapters"]]
        raw["adapters"] = [a | {"path": _placed(str(a["path"]), folder)} if "path" in a else a for a in entries]
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise InputError(*_complaints(error, source)) from None


def _placed(name: str, folder: Path) -> str:
    return name if is_remote(name, folder) else str(folder / name)


def _complaints(error: ValidationError, source: str) -> tuple[str, str, str]:
    """Return where, problem and remedy of an `InputError` that lists everything that validation found."""
    lines = []
    for entry in error.errors():
        key = ".".join(str(part) for part in entry["loc"])
        message = re.sub(r"^Value error, ", "", entry["msg"])
        if entry["type"] == "extra_forbidden":
            message = "is not a key of a study"
        elif entry["type"] == "missing":
            message = "is missing"
        shown = repr(entry["input"]) if not isinstance(entry["input"], dict | list | tuple | Study) else ""
        lines.append(" ".join(part for part in (f"{key}:" if key else "", message, f"(got {shown})" if shown else "")
                              if part))  # fmt: skip
    return source, " | ".join(lines), "correct it (docs/study.md lists every key)"
