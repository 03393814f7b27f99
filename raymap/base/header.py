"""The header of a safetensors file: names and shapes of its tensors, read without them; or what the file is instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open

from raymap.errors import InputError

Shapes = dict[str, tuple[int, ...]]
AGAIN = "fetch it again"
OTHERS = (
    (b"version https://git-lfs", "is a pointer of Git LFS and not the file itself", "fetch it with `git lfs pull`"),
    (b"<", "is a web page (HTML)", "fetch the file itself; its page may ask you to log in"),
    (b"{", "is a JSON text, such as a server's error message", "fetch the file itself, which may need a key"),
    (b"GGUF", "is a GGUF file", "give the safetensors file that it was made from"),
    (b"PK", "is a pickle, which could run code", "convert it to safetensors"),
    (b"\x80", "is a pickle, which could run code", "convert it to safetensors"),
    (b"\x89PNG", "is an image", "give the adapter file that it shows"),
    (b"\xff\xd8\xff", "is an image", "give the adapter file that it shows"),
    (b"RIFF", "is an image", "give the adapter file that it shows"),
    (b"\x1f\x8b", "is a compressed archive", "unpack it"),
    (b"7z\xbc\xaf", "is a compressed archive", "unpack it"),
    (b"Rar!", "is a compressed archive", "unpack it"),
)
"""How files of other kinds begin, what they are, and what to do."""
_NUMBER = re.compile(r"(?<![A-Za-z0-9])[1-9]\d*(?![A-Za-z0-9])")


@dataclass(frozen=True)
class Header:
    """Shapes of a file's tensors by name, and what else its writer said in it."""

    shapes: Shapes
    metadata: Mapping[str, str]

    @cached_property
    def patterns(self) -> frozenset[str]:
        """The names of the tensors with 1 in the place of every number but 0.

        Each stands for all layers of one make, so that a few dozen stand for thousands.
        """
        names = _NUMBER.sub("1", "\n".join(self.shapes))
        return frozenset(names.split("\n")) if self.shapes else frozenset()


def read_header(path: Path, name: str | None = None) -> Header:
    """Read a file's header.

    Args:
        name: what errors call the file; its path by default.

    Raises:
        InputError: it cannot be read, is cut off, or is a file of another kind, which is named.
    """
    where = name or str(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(where, f"cannot be read ({error.strerror})", "give a safetensors file") from error
    if not start:
        raise InputError(where, "is empty", AGAIN)
    if not is_safetensors(start) and (kind := other_kind(start)):
        raise InputError(where, *kind)
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return Header(shapes, dict(file.metadata() or {}))
    except (SafetensorError, OSError) as error:
        raise refused(where, error) from error


def is_safetensors(start: bytes) -> bool:
    """Return whether a file begins as safetensors does: the length of its header comes first, and then the header."""
    return start[8:9] == b"{"


def other_kind(start: bytes) -> tuple[str, str] | None:
    """Return what a file of another kind is by its first bytes, and what to do; None where they do not tell."""
    begins = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    return next(((problem, remedy) for first, problem, remedy in OTHERS if begins.startswith(first)), None)


def refused(where: str, error: Exception) -> InputError:
    """Return the error for a safetensors file that cannot be read."""
    cut = any(said in str(error) for said in ("not fully covered", "too small", "invalid header length"))
    problem = "is cut off: its end is missing" if cut else f"is not a readable safetensors file ({error})"
    return InputError(where, problem, AGAIN)
