"""Finds the folder of a base, which is embedded, a local diffusers folder, a URL of one, or a hub id. Loads none."""

from __future__ import annotations

import hashlib
from pathlib import Path

from raymap.base.clip_tokenizer import clip_tokenizer_folder
from raymap.base.embedded import embedded_folder
from raymap.base.families.registry import FAMILIES, family_at
from raymap.base.fetch import cache, fetch
from raymap.base.parts import parts_of
from raymap.base.settings import OWN, own_settings
from raymap.base.shapes import INDEX, class_of, index_of
from raymap.embedded.model import PIPELINES
from raymap.errors import InputError

OUTLINES = Path(__file__).with_name("outlines")
SUFFIXES = (".json", ".jinja", ".txt", ".model", ".safetensors", ".bin")
"""Suffixes of the files that loading a component reads."""
CLIP = "CLIPTokenizer"
"""The class of CLIP's tokenizer."""


def resolve(base: str) -> Path:
    """Return the folder of a base on this node; a URL or a hub id (`org/name`, `org/name@revision`) is fetched once.

    Raises:
        InputError: it is neither embedded nor a diffusers folder, its URL or the hub does not give it, or the hub's
            base is of no known family.
    """
    if base in PIPELINES:
        return embedded_folder(base)
    if "://" in base:
        return fetch(base, cached(base), INDEX)
    folder = Path(base)
    if (folder / INDEX).is_file():
        return folder
    if folder.exists() or base.startswith((".", "/")):
        raise InputError(f"base: {base}", f"is not a diffusers folder (no {INDEX})", "give its path or hub id")
    return _from_hub(base)


def local_file(name: str) -> Path:
    """Return a file on this node; a URL is fetched once.

    Raises:
        InputError: its URL does not give it, or what it gives is no safetensors file.
    """
    return fetch(name, cached(name)) if "://" in name else Path(name)


def cached(url: str) -> Path:
    """Return where on this node what a URL gives is kept."""
    return cache() / hashlib.sha256(url.encode()).hexdigest()[:16]


def tokenizer_at(folder: Path, name: str) -> Path | None:
    """Return the folder of a tokenizer of a base; CLIP's lies in the user's cache where only its settings are there.

    None where an outline has no tokenizer of this kind.
    """
    if any(not path.name.endswith(("_config.json", "_map.json")) for path in (folder / name).glob("*")):
        return folder / name
    return clip_tokenizer_folder() if class_of(folder, name) == CLIP else None


def _from_hub(base: str) -> Path:
    from huggingface_hub import hf_hub_download  # takes half a second, and other bases do not need it

    name, _, revision = base.partition("@")
    try:
        index = hf_hub_download(name, INDEX, revision=revision or None)
        # An unknown family is refused here, before its gigabytes are fetched.
        pipeline = family_at(Path(index).parent, base).pipeline_class
        return Path(pipeline.download(name, revision=revision or None, use_safetensors=True))
    except InputError:
        raise
    except Exception as error:
        problem = f"cannot be fetched from the model hub ({type(error).__name__})"
        raise InputError(f"base: {base}", problem, "check the id and the network, or give a folder") from error


def outline_of(base: str) -> Path | None:
    """Return the folder with the configurations of a base, where it is a known hub id that was not fetched yet.

    Shapes, FLOPs and the size of images follow from configurations as from the base itself.
    """
    name, _, revision = base.partition("@")
    known = known_outline(name)
    if known is None or Path(base).exists():
        return None
    from huggingface_hub import try_to_load_from_cache  # takes half a second, and other bases do not need it

    cached = try_to_load_from_cache(name, INDEX, revision=revision or None)
    return None if isinstance(cached, str) else known


def known_outline(hub_id: str) -> Path | None:
    """Return the folder with the configurations of a hub id's architecture; None where it is not known."""
    found = next((family.outlines[hub_id] for family in FAMILIES.values() if hub_id in family.outlines), None)
    return None if found is None else OUTLINES / found


def pinned(base: str, folder: Path) -> str:
    """Return the name by which every node gets the files in this folder: a hub id with its commit, or the name."""
    from_hub = not Path(base).exists() and folder.parent.name == "snapshots"
    return f"{base.partition('@')[0]}@{folder.name}" if from_hub else base


def digest(folder: Path, replaced: tuple[str, ...] = ()) -> str:
    """Return the SHA-256 over the files that loading a base reads: their names and contents, in order of name.

    Args:
        replaced: components whose weights come from elsewhere.
    """
    total = hashlib.sha256()
    for path in decisive(folder):
        if path.parent.name in replaced and path.suffix != ".json":
            continue
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def decisive(folder: Path) -> list[Path]:
    """Return the files of a base's folder that loading it reads.

    The hub's cache puts others beside them when they are asked for: variants (`….fp16.safetensors`), pickles of what
    safetensors hold, a safety checker.
    """
    decisive = [folder / INDEX, *([folder / OWN] if own_settings(folder).call else [])]
    for part in parts_of(index_of(folder)).names:
        named = [path for path in (folder / part).glob("*") if path.suffix in SUFFIXES]
        plain = [path for path in named if "." not in path.stem]
        safe = any(path.suffix == ".safetensors" for path in plain)
        decisive += [path for path in plain if not (safe and path.suffix == ".bin")]
    return sorted(path for path in decisive if path.is_file())
