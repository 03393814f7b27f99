"""Fetches a base's folder or file from a URL, once on each node, and keeps commands that need no hub from asking it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from filelock import FileLock
from fsspec.core import url_to_fs

from raymap.base.header import read_header
from raymap.errors import InputError


def offline() -> None:
    """Keep the model libraries from asking the model hub, for work that needs nothing from it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def cache() -> Path:
    """Return the folder in which this user's copies of bases lie."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "raymap"


def fetch(url: str, target: Path, marker: str | None = None) -> Path:
    """Fetch a file, or a folder with everything in it, and return the local one.

    A second process waits and uses the same copy.

    Args:
        marker: the name of a file that the folder has to hold; None fetches a safetensors file.

    Raises:
        InputError: it cannot be fetched, holds no file of the marker's name, or is another kind of file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
                copy = Path(temporary) / "new"
                try:
                    filesystem, at = url_to_fs(url)
                    if marker is None:
                        filesystem.get_file(at, str(copy))
                    else:
                        filesystem.get(at.rstrip("/") + "/", f"{copy}/", recursive=True)
                except Exception as error:
                    problem = f"cannot be fetched ({type(error).__name__}: {' '.join(str(error).split())})"
                    raise InputError(url, problem, "check the URL and this node's credentials") from error
                if marker is None:
                    read_header(copy, url)
                elif not (copy / marker).is_file():
                    raise InputError(url, f"has no {marker}", "give the folder that holds it")
                copy.rename(target)
    return target
