"""Where a base model lies: `embedded`, a local diffusers folder, a URL of one, or a hub id. Loads none."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path

from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.store.files import fetch_folder

OUTLINES = Path(__file__).with_name("outlines")
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
KNOWN = {"stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15", "CompVis/stable-diffusion-v1-4": "sd15"}
"""Hub ids of a known architecture, and the folder in OUTLINES that has its configurations."""


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
    from diffusers import StableDiffusionPipeline  # loads torch, and other bases need none of it here

    try:
        name, _, revision = base.partition("@")
        return Path(StableDiffusionPipeline.download(name, revision=revision or None, use_safetensors=True))
    except Exception as error:
        problem = f"cannot be had from the model hub ({type(error).__name__})"
        raise InputError(f"base: {base}", problem, "check the id and the network, or give a folder") from error


def outline(base: str) -> Path | None:
    """Return the folder of a base's configurations alone, where it is a known hub id that was not fetched yet.

    Shapes, FLOPs and sizes of pictures follow from it as from the base itself.
    """
    name, _, revision = base.partition("@")
    if name not in KNOWN or Path(base).exists():
        return None
    from huggingface_hub import try_to_load_from_cache  # takes half a second, and other bases need none of it

    held = try_to_load_from_cache(name, "model_index.json", revision=revision or None)
    return None if isinstance(held, str) else OUTLINES / KNOWN[name]


def tokenizer_folder(folder: Path) -> Path:
    """Return where a base's tokenizer lies; an outline has none: it is CLIP's, as the embedded base's is."""
    return (PIPELINE if folder.parent == OUTLINES else folder) / "tokenizer"


def pinned(base: str) -> str:
    """Return the name by which every node gets the files that this one has: a hub id with the commit it stands at."""
    folder = resolve(base)
    from_hub = not Path(base).exists() and folder.parent.name == "snapshots"
    return f"{base.partition('@')[0]}@{folder.name}" if from_hub else base


def _decisive(folder: Path) -> list[Path]:
    """Return the files of a base's folder that loading it reads.

    The hub's cache lays others beside them when they are asked for: variants (`….fp16.safetensors`), pickles of what
    safetensors hold, a safety checker.
    """
    found = [folder / "model_index.json"]
    for part in PARTS:
        named = [path for path in (folder / part).glob("*") if path.suffix in (".json", ".txt", ".safetensors", ".bin")]
        plain = [path for path in named if "." not in path.stem]
        safe = any(path.suffix == ".safetensors" for path in plain)
        found += [path for path in plain if not (safe and path.suffix == ".bin")]
    return sorted(path for path in found if path.is_file())


@cache
def digest(folder: Path) -> str:
    """Return the SHA-256 over the files that loading a base's folder reads: names and contents, in order of name."""
    total = hashlib.sha256()
    for path in _decisive(folder):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def picture_side(folder: Path) -> int:
    """Return the side in pixels of the pictures a base draws, from its configurations."""
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
