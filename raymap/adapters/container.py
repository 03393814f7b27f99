"""Opens an adapter file, safetensors or a pickle of plain tensors, without running anything that is in it."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from raymap.adapters.image import PNG, embedding_in
from raymap.base.header import Header, is_safetensors, other_kind, refused
from raymap.errors import InputError

MAX_DEPTH = 8
"""How deeply the entries of a pickle may be nested; those of adapters are two or three deep."""


@dataclass(frozen=True)
class Container:
    """What a file holds: its entries, nested as in the file (safetensors: flat), and its header's metadata."""

    path: Path
    entries: dict[str, Any]
    metadata: dict[str, str]

    @cached_property
    def header(self) -> Header:
        """Shapes of all tensors by name; the names of nested ones are joined with dots."""
        return Header(dict(_shapes(self.entries)), self.metadata)


def open_file(path: Path, mapped: bool = False) -> Container:
    """Read a file. Its first bytes decide its format, since diffusers writes safetensors into `.bin` files too.

    Args:
        mapped: numbers stay on the disk until they are asked for, where the format allows it.

    Raises:
        InputError: a file that is missing, empty, truncated or of another format, or a pickle that would run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "give an adapter file") from error
    if not start:
        raise InputError(str(path), "is empty", "fetch it again")
    if is_safetensors(start):
        return _safetensors(path)
    if start.startswith(b"PK") and not _is_pickle(path):
        raise InputError(str(path), "is a ZIP archive", "unpack it")
    if start.startswith(PNG) and (embedding := embedding_in(path)):
        return Container(path, _plain(embedding), {})
    pickled = start.startswith((b"PK", b"\x80"))
    if not pickled and (kind := other_kind(start)):
        raise InputError(str(path), *kind)
    return (
        _safetensors(path)
        if path.suffix == ".safetensors" and not pickled
        else _pickle(path, mapped and start.startswith(b"PK"))
    )


def _is_pickle(path: Path) -> bool:
    """Return whether a ZIP archive is what torch writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return True  # a damaged one, which torch's complaint describes


def _safetensors(path: Path) -> Container:
    try:
        with safe_open(path, framework="pt") as file:
            entries = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return Container(path, entries, dict(file.metadata() or {}))
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, KeyError, TypeError) as error:
        raise refused(str(path), error) from error


def _pickle(path: Path, mapped: bool) -> Container:
    try:
        # A1111's embeddings may be in one of these, which is as plain as the dictionary that others are in.
        with torch.serialization.safe_globals([nn.ParameterDict]):
            entries = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        entries = _plain(entries)
    except Exception as error:  # a broken pickle can raise anything, and then the file is not used
        logging.getLogger(__name__).debug("%s", error)
        problem = f"is not a file of plain tensors (weights-only loading: {_line(error)})"
        raise InputError(str(path), problem, "if you trust it, convert it to safetensors") from error
    if isinstance(entries, dict) and isinstance(entries.get("state_dict"), dict):  # as Lightning keeps checkpoints
        entries = entries["state_dict"]
    if not isinstance(entries, dict):
        raise InputError(str(path), "holds no named tensors", "give an adapter file")
    return Container(path, entries, {})


def _plain(value: Any, depth: int = 0) -> Any:
    """Return an entry with dictionaries of text keys for everything that names its contents.

    Raises:
        ValueError: it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError("its entries are nested too deeply")
    if isinstance(value, nn.ParameterDict):
        value = dict(value._parameters) if isinstance(value._parameters, dict) else {}
    if isinstance(value, dict):
        return {str(key): _plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, depth + 1) for entry in value]
    return value


def _shapes(value: Any, name: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(value, torch.Tensor):
        yield name, tuple(value.shape)
    elif isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in inner:
            yield from _shapes(entry, f"{name}.{key}" if name else str(key))


def _line(error: Exception) -> str:
    """Return an error's first sentence: torch appends paragraphs of advice to load the file unsafely."""
    text = " ".join(str(error).split()) or type(error).__name__
    for marker in ("WeightsUnpickler error: ", "Weights only load failed. "):
        text = text.partition(marker)[2] or text
    return text.partition(". ")[0][:200].rpartition(" ")[0] if len(text) > 200 else text.partition(". ")[0]
