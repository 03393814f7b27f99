"""Reads an adapter, a file or a folder, whatever its layout, and checks all of it against a base."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from raymap.adapters.card import CARD, adapter_digest, adapter_files, config_of, with_config
from raymap.adapters.container import Container, open_file
from raymap.adapters.custom_diffusion import is_custom_diffusion, read_custom_diffusion
from raymap.adapters.inversion import ROWS_KEY, is_inversion, read_inversion
from raymap.adapters.lora import is_lora, read_lora
from raymap.adapters.update import Adapter, merged
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError
from raymap.store.files import local_copy

LICENCE = ("modelspec.license", "license", "licence")
CONSENT = ("modelspec.consent", "consent")
WHOLE = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conv_in.")


@dataclass(frozen=True)
class Read:
    """An adapter with the files it came from and what their headers say."""

    adapter: Adapter
    method: str
    files: tuple[Path, ...]
    metadata: Mapping[str, str]

    def said(self, keys: tuple[str, ...]) -> str:
        """Return what the headers say under the first of some keys that they hold; empty where none."""
        return next((self.metadata[key] for key in keys if self.metadata.get(key)), "")

    @property
    def licence(self) -> str:
        """The licence that the headers name; empty where they name none."""
        return self.said(LICENCE)

    @property
    def consent(self) -> str:
        """What the headers say of the consent of those who are pictured; empty where they say nothing."""
        return self.said(CONSENT)


def read_adapter(path: Path, skeleton: Skeleton, trigger: str | None = None) -> Read:
    """Read an adapter file, or all adapter files of a folder as one adapter.

    Args:
        trigger: names a single learned token anew.

    Raises:
        InputError: naming the file and what does not hold: an unreadable or foreign file, a key that is not used,
            a shape that does not fit, a value that is not finite, or nothing that would change the base.
    """
    files = adapter_files(path)
    parts, methods = [], set()
    metadata: dict[str, str] = {}
    for file in files:
        container = _floats(open_file(file))
        method, part = _parse(container, skeleton, trigger)
        parts.append(part)
        methods.add(method)
        metadata |= container.metadata
    try:
        adapter = merged(parts)
    except ValueError as error:
        raise InputError(str(path), str(error), "give one adapter a folder") from error
    if not adapter.updates and not adapter.tokens and adapter.rows is None:
        raise InputError(str(path), "holds nothing that touches the base", "fetch it again")
    return Read(adapter, _method(methods, path), files, metadata)


def load_adapter(folder: Path, skeleton: Skeleton) -> Adapter:
    """Read the adapter of a folder whose card was checked, perhaps on another node.

    Raises:
        InputError: as `read_adapter`; the folder does not hold the weights that its card names.
    """
    with local_copy(folder) as copy:
        try:
            card = json.loads((copy / CARD).read_text(encoding="utf-8"))
        except OSError as error:
            problem = f"cannot be read on node {socket.gethostname()} ({error.strerror})"
            raise InputError(str(folder / CARD), problem, "give an --output that every node reaches") from error
        read = read_adapter(copy, skeleton, card.get("token"))
        if adapter_digest(read.files) != card["sha256"]:
            raise InputError(str(folder), f"is not what {CARD} describes", "train or fetch it again")
        return read.adapter


def foreign_card(name: str, category: str | None, token: str | None, read: Read, base_sha256: str) -> dict[str, Any]:
    """Return the card of an adapter that was brought along as bare files and checked against this base.

    Args:
        category: the subject's, where the user knows it; without it no prompt counts as the subject's own.
        token: the user's name for its learned token.
    """
    return {
        "name": name,
        "method": read.method,
        "subject": name,
        "subject_category": category or "unknown",
        "base_sha256": base_sha256,
        "sha256": adapter_digest(read.files),
        "files": [path.name for path in with_config(read.files)],
        "token": token,
        "phrase": token or next((t.trigger for t in read.adapter.tokens), None),
        "licence": read.licence or None,
        "consent": read.consent or None,
        "metadata": dict(read.metadata),
    }


def _floats(file: Container) -> Container:
    """Return the container with all tensors float32.

    Raises:
        InputError: for a tensor of another kind, or one that is not finite.
    """
    for key, value in _tensors(file.entries):
        # A1111 keeps a token's id, and diffusers' conversion to kohya's layout alpha, as an integer.
        number = key.partition(".")[0] == "string_to_token" or (key.endswith(".alpha") and value.numel() == 1)
        if not (value.is_floating_point() or number) or value.is_sparse or value.is_quantized:
            raise InputError(str(file.path), f"{key} holds {value.dtype}, no plain floats", "fetch it again")
        if not torch.isfinite(value.float()).all():
            raise InputError(str(file.path), f"{key} holds non-finite values", "train or fetch it again")
    return replace(file, entries=_as_float(file.entries))


def _tensors(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in entries.items():
        if isinstance(value, torch.Tensor):
            yield prefix + str(key), value
        elif isinstance(value, dict):
            yield from _tensors(value, f"{prefix}{key}.")


def _as_float(entries: Mapping[str, Any]) -> dict[str, Any]:
    floats: dict[str, Any] = {}
    for key, value in entries.items():
        if isinstance(value, torch.Tensor):
            floats[key] = value.detach().float()
        else:
            floats[key] = _as_float(value) if isinstance(value, dict) else value
    return floats


def _parse(file: Container, skeleton: Skeleton, trigger: str | None) -> tuple[str, Adapter]:
    keys = list(file.entries)
    if not keys:
        raise InputError(str(file.path), "holds no tensors", "fetch it again")
    if keys == [ROWS_KEY]:
        return "textual_inversion", Adapter({}, rows=_rows(file, skeleton))
    if is_custom_diffusion(file):
        return "custom_diffusion", read_custom_diffusion(file, skeleton, trigger)
    if any(key.startswith(WHOLE) for key in keys):
        raise InputError(str(file.path), "is a whole checkpoint, no adapter", "give the adapter's own file")
    if is_lora(keys):
        return "lora", Adapter(read_lora(file, skeleton, _peft_config(file.path)))
    if is_inversion(file):
        return "textual_inversion", Adapter({}, read_inversion(file, skeleton, trigger))
    problem = f"is of no known layout (first key: {keys[0]!r})"
    raise InputError(str(file.path), problem, "give a LoRA, Textual Inversion or Custom Diffusion file")


def _rows(file: Container, skeleton: Skeleton) -> torch.Tensor:
    rows = file.entries[ROWS_KEY]
    expected = (len(skeleton.vocabulary), skeleton.text_width)
    if not isinstance(rows, torch.Tensor) or rows.shape != expected:
        raise InputError(str(file.path), f"is no token embedding of {expected}", "use the base it was trained for")
    return rows


def _peft_config(path: Path) -> dict[str, Any] | None:
    config = config_of(path)
    if config is None:
        return None
    try:
        held = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(str(config), f"is no JSON ({error})", "fetch it again") from error
    if not isinstance(held, dict):
        raise InputError(str(config), "is no JSON object", "fetch it again")
    return held


def _method(methods: set[str], path: Path) -> str:
    """Custom Diffusion brings its modifier token as a file of Textual Inversion's layout."""
    if "custom_diffusion" in methods and "lora" not in methods:
        return "custom_diffusion"
    if len(methods) > 1:
        raise InputError(str(path), f"mixes files of {' and '.join(sorted(methods))}", "give one adapter a folder")
    return methods.pop()
