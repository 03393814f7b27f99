"""Fetches a base's folder from a URL, once on each node, and keeps commands that need no hub from asking it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from filelock import FileLock
from fsspec.core import url_to_fs

from raymap.errors import InputError


def offline() -> None:
    """Keep the model libraries from asking the model hub, for work that needs nothing from it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def fetch_folder(url: str, target: Path, marker: str) -> Path:
    """Fetch a folder with everything in it and return the local one; a second process waits and uses the same copy.

    Raises:
        InputError: it cannot be fetched, or holds no file of the marker's name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
                copy = Path(temporary) / "new"
                try:
                    filesystem, at = url_to_fs(url)
                    filesystem.get(at.rstrip("/") + "/", f"{copy}/", recursive=True)
                except Exception as error:
                    problem = f"cannot be fetched ({type(error).__name__}: {' '.join(str(error).split())})"
                    raise InputError(url, problem, "check the URL and this node's credentials") from error
                if not (copy / marker).is_file():
                    raise InputError(url, f"has no {marker}", "give the folder that holds it")
                copy.rename(target)
    return target
