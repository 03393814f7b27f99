"""Folders of the embedded bases, some of which share an autoencoder."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from raymap.base.fetch import cache
from raymap.embedded.model import PIPELINE, PIPELINES

AUTOENCODER = "vae"


def embedded_folder(name: str) -> Path:
    """Return the whole diffusers folder of an embedded base.

    A base that comes without an autoencoder has that of `embedded`. Its folder is put together in the user's cache, the
    first time that it is needed on a machine.
    """
    own = PIPELINES[name]
    if (own / AUTOENCODER).is_dir():
        return own
    target = cache() / f"{name}-{_state(own, PIPELINE / AUTOENCODER)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                whole = Path(scratch) / "new"
                shutil.copytree(own, whole)
                shutil.copytree(PIPELINE / AUTOENCODER, whole / AUTOENCODER)
                whole.rename(target)
    return target


def _state(*folders: Path) -> str:
    """Return a digest of what the folders' files are, without reading them."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
