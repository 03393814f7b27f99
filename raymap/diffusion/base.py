"""Loads a base model: `embedded`, a local diffusers folder, a URL of one, or a hub id."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.store.files import fetch_folder


def resolve(base: str) -> Path:
    """Return the folder of a base on this node, fetching a URL or a hub id once: `org/name`, or `org/name@revision`.

    Raises:
        InputError: when it is neither embedded, nor a diffusers folder, nor to be had from its URL or the hub.
    """
    if base == "embedded":
        return PIPELINE
    if "://" in base:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "raymap"
        return fetch_folder(base, cache / hashlib.sha256(base.encode()).hexdigest()[:16], "model_index.json")
    folder = Path(base)
    if (folder / "model_index.json").is_file():
        return folder
    if folder.exists() or base.startswith((".", "/")):
        raise InputError(f"base: {base}", "is no diffusers folder (no model_index.json)", "give its path or hub id")
    try:
        name, _, revision = base.partition("@")
        return Path(StableDiffusionPipeline.download(name, revision=revision or None, use_safetensors=True))
    except Exception as error:
        problem = f"cannot be had from the model hub ({type(error).__name__})"
        raise InputError(f"base: {base}", problem, "check the id and the network, or give a folder") from error


def pinned(base: str) -> str:
    """Return the name by which every node gets the files that this one has: a hub id with the commit it stands at."""
    folder = resolve(base)
    from_hub = not Path(base).exists() and folder.parent.name == "snapshots"
    return f"{base.partition('@')[0]}@{folder.name}" if from_hub else base


@cache
def digest(folder: Path) -> str:
    """Return the SHA-256 over all files of a base's folder: names and contents, in order of name."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".txt", ".safetensors", ".bin")):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def picture_side(folder: Path) -> int:
    """Return the side in pixels of the pictures a base draws, from its configurations."""
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """Load a pipeline for drawing or training: every module in eval mode, nothing asks for gradients."""
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=dtype, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        module.eval().requires_grad_(False)
    return pipeline.to(device)
