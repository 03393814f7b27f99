"""Folders of the embedded bases, which share an autoencoder and a vocabulary."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from raymap.base.fetch import cache
from raymap.embedded.model import PIPELINE, PIPELINES

SHARED = {
    "vae/config.json": "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.safetensors",
    "tokenizer/tokenizer.json": "tokenizer/tokenizer.json",
    "tokenizer_2/tokenizer.json": "tokenizer/tokenizer.json",
}
"""Files that a base may lack, and those of `embedded` that take their places."""


def embedded_folder(name: str) -> Path:
    """Return the whole diffusers folder of an embedded base.

    That of a base that shares files with `embedded` is put together in the user's cache, the first time it is needed
    on a machine.
    """
    own = PIPELINES[name]
    if own == PIPELINE:
        return own
    target = cache() / f"{name}-{_state(own, PIPELINE)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                whole = Path(scratch) / "new"
                shutil.copytree(own, whole)
                for path, source in SHARED.items():
                    (whole / path).parent.mkdir(exist_ok=True)
                    shutil.copyfile(PIPELINE / source, whole / path)
                whole.rename(target)
    return target


def _state(*folders: Path) -> str:
    """Return a digest of what the folders' files are, without reading them."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
