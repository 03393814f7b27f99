"""Adapter folders: weights in their community's format, and a card, `adapter.json`, that says what they are."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymap.base.checkpoint import prediction_beside
from raymap.base.folder import decisive
from raymap.base.shapes import INDEX
from raymap.errors import InputError
from raymap.store.files import as_json, local_copy, read_file, write_atomically
from raymap.study.adapter import AdapterInfo
from raymap.study.source import SUFFIXES

CARD = "adapter.json"
CONFIG = "adapter_config.json"
"""Holds rank and alpha of the LoRA beside it, as peft writes it."""
COMPONENT = re.compile(r"(unet|transformer|text_encoder)(_\d)?")
"""How the components are called whose weights adapters change."""


def adapter_files(path: Path) -> tuple[Path, ...]:
    """Return the adapter files of a path: the file itself, or those in the folder.

    Of files that differ in their suffix alone, the first in the order of SUFFIXES is taken: safetensors before pickles.
    A folder without any may have one folder for each component, as `unet` and `text_encoder`. Of a diffusers folder,
    all files are taken that a pipeline reads.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise InputError(str(path), "does not exist", "give an adapter file or its folder")
    if (path / INDEX).is_file():
        return tuple(decisive(path))
    files = _weights(path) or [file for folder in components_in(path) for file in _weights(folder)]
    if not files:
        raise InputError(str(path), "holds no adapter file", f"give one that ends in {', '.join(SUFFIXES)}")
    return tuple(files)


def components_in(folder: Path) -> list[Path]:
    """Return the folders in a folder that are named as components which adapters change."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and COMPONENT.fullmatch(path.name))


def _weights(folder: Path) -> list[Path]:
    files: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for file in sorted(folder.glob(f"*{suffix}")):
            files.setdefault(file.stem, file)
    return sorted(files.values())


def names_of(files: Sequence[Path]) -> dict[str, Path]:
    """Return an adapter's files by their names, which are relative to the folder that holds them all."""
    folder = Path(os.path.commonpath([path.parent for path in files]))
    return {path.relative_to(folder).as_posix(): path for path in files}


def config_of(path: Path) -> Path | None:
    """Return the configuration beside a file that peft wrote, None for other files: it alone holds the file's alpha."""
    config = path.parent / CONFIG
    return config if path.name.startswith("adapter_model") and config.is_file() else None


def with_config(files: Sequence[Path]) -> tuple[Path, ...]:
    """Return an adapter's files, and the configurations beside them: peft's, and that of a single-file checkpoint."""
    beside = [config for path in files if (config := config_of(path) or prediction_beside(path))]
    return (*files, *dict.fromkeys(config for config in beside if config not in files))


def adapter_digest(weights: Sequence[Path]) -> str:
    """Return the SHA-256 that identifies an adapter.

    It is that of its file. Of several files, peft's configuration included, it is that of their names and digests.
    """
    files, digests = with_config(weights), []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    listed = "".join(f"{name}\0{digest}\n" for name, digest in zip(names_of(files), digests, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write adapter.json. It comes last in a training or a copy: without it, the adapter counts as not there."""
    write_atomically(folder / CARD, as_json(card))


def read_card(folder: Path, base_sha256: str) -> tuple[AdapterInfo, dict[str, Any]]:
    """Read an adapter's card and check that it describes the weights beside it, and that they were made for this base.

    Raises:
        InputError: the card cannot be read, belongs to another base, or describes other weights.
    """
    info, card = parse_card(folder, base_sha256)
    with local_copy(folder, below=True) as copy:
        check_weights(folder, adapter_files(copy), info)
    return info, card


def parse_card(folder: Path, base_sha256: str) -> tuple[AdapterInfo, dict[str, Any]]:
    """Read an adapter's card and check that it belongs to this base; its weights are not looked at.

    Raises:
        InputError: naming the folder and what does not hold.
    """
    path = folder / CARD
    try:
        card = json.loads(read_file(path))
        info = AdapterInfo(card["name"], card["method"], card["subject"], card["subject_category"], card["sha256"])
        trained_for = card["base_sha256"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(str(path), f"is not an adapter card ({error!r})", "train the adapter again") from error
    if trained_for != base_sha256:
        problem = f"was trained for another base ({trained_for[:12]}…, this one is {base_sha256[:12]}…)"
        raise InputError(str(folder), problem, "use that base, or train the adapter again")
    return info, card


def check_weights(folder: Path, files: Sequence[Path], info: AdapterInfo) -> None:
    """Check that the files of an adapter are those that its card describes.

    Args:
        folder: the adapter's, for errors.
        files: the adapter's, on this machine.

    Raises:
        InputError: they are not.
    """
    if adapter_digest(files) != info.sha256:
        problem = f"is not the file that {CARD} describes"
        raise InputError(str(folder / files[0].name), problem, "train or fetch it again")


def read_phrase(folder: Path) -> str | None:
    """Return what stands for the adapter's subject in a prompt (`protocol: triggered` needs it); None if unknown."""
    phrase = json.loads(read_file(folder / CARD)).get("phrase")
    return None if phrase is None else str(phrase)
