"""Opens an adapter file, safetensors or a pickle of plain tensors, without running anything that is in it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from raymap.errors import InputError


@dataclass(frozen=True)
class Container:
    """What a file holds: its entries, nested as in the file (safetensors: flat), and its header's metadata."""

    path: Path
    entries: dict[str, Any]
    metadata: dict[str, str]


def open_file(path: Path) -> Container:
    """Read a file. Its first bytes decide its format, since diffusers writes safetensors into `.bin` files too.

    Raises:
        InputError: a file that is missing, empty, truncated or of another format, or a pickle that would run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "give an adapter file") from error
    if not start:
        raise InputError(str(path), "is empty", "fetch it again")
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return _safetensors(path)
    return _pickle(path)


def _safetensors(path: Path) -> Container:
    try:
        with safe_open(path, framework="pt") as file:
            entries = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return Container(path, entries, dict(file.metadata() or {}))
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, KeyError, TypeError) as error:
        raise InputError(str(path), f"is not a readable safetensors file ({_line(error)})", "fetch it again") from error


def _pickle(path: Path) -> Container:
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle can raise anything, and then the file is not used
        logging.getLogger(__name__).debug("%s", error)
        problem = f"is not a file of plain tensors (weights-only loading: {_line(error)})"
        raise InputError(str(path), problem, "if you trust it, convert it to safetensors") from error
    if not isinstance(entries, dict) or not all(isinstance(key, str) for key in entries):
        raise InputError(str(path), "holds no named tensors", "give an adapter file")
    return Container(path, entries, {})


def _line(error: Exception) -> str:
    """Return an error's first sentence: torch appends paragraphs of advice to load the file unsafely."""
    text = " ".join(str(error).split()) or type(error).__name__
    for marker in ("WeightsUnpickler error: ", "Weights only load failed. "):
        text = text.partition(marker)[2] or text
    return text[:160]
