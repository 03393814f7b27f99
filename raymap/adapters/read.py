"""Reads an adapter, a file or a folder, in any known layout, and checks all of it against a base."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from raymap.adapters.card import CARD, adapter_digest, adapter_files, names_of, with_config
from raymap.adapters.checkpoint import CHECKPOINT, is_model, read_model
from raymap.adapters.container import Container, open_file
from raymap.adapters.origin import bases_for, kind_of, made_for
from raymap.adapters.textual_inversion import adapter_of, without_bundle
from raymap.adapters.update import Adapter, merged
from raymap.base.file_kinds import kind_in
from raymap.base.header import Header, read_header
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError, MisfitError
from raymap.store.files import local_copy
from raymap.study.methods.lora import LORA
from raymap.study.methods.registry import METHODS, known_method, method_names
from raymap.study.methods.textual_inversion import TEXTUAL_INVERSION

LICENCE = ("modelspec.license", "license", "licence")
CONSENT = ("modelspec.consent", "consent")
Reader = Callable[[Container, Skeleton, str | None], Adapter | None]
"""A reader of one layout: `read(file, skeleton, trigger)`; None where the file has another layout.

It uses every key of a file of its layout, or raises InputError; `trigger`, where given, renames a single learned token.
All tensors of the container are float32 and finite.
"""


@dataclass(frozen=True)
class Read:
    """An adapter with the files it came from and what their headers say."""

    adapter: Adapter
    method: str
    files: tuple[Path, ...]
    metadata: Mapping[str, str]

    def said(self, keys: tuple[str, ...]) -> str:
        """Return what the headers hold under the first of these keys that they have; empty if they have none."""
        return next((self.metadata[key] for key in keys if self.metadata.get(key)), "")

    @property
    def licence(self) -> str:
        """The licence that the headers name; empty if they name none."""
        return self.said(LICENCE)

    @property
    def consent(self) -> str:
        """What the headers say about the consent of depicted people; empty if they say nothing."""
        return self.said(CONSENT)


def read_adapter(path: Path, skeleton: Skeleton, trigger: str | None = None, method: str | None = None) -> Read:
    """Read an adapter file, or all adapter files of a folder as one adapter.

    Args:
        trigger: a new name for the adapter's learned token, if it has exactly one.
        method: the method that the files are known to be of, whose reader is then asked first. Without it, the method
            is told from the layout.

    Raises:
        InputError: naming the file and the problem: it is unreadable or of an unknown layout, a key cannot be used, a
            shape does not fit the base, a value is not finite, or nothing in it would change the base.
    """
    maybe_whole = method in (None, CHECKPOINT)
    if maybe_whole and path.is_dir() and is_model(path):
        model = _some(read_model(path, skeleton), path)
        return Read(model, CHECKPOINT, adapter_files(path), {})
    files = adapter_files(path)
    parts, methods = [], []
    metadata: dict[str, str] = {}
    for file in files:
        if maybe_whole and is_model(file):
            header = read_header(file)
            try:
                parts.append(read_model(file, skeleton))
            except MisfitError as error:
                added = _of_packages(file, skeleton, trigger)
                if added is None:
                    raise _named(error, file, header, skeleton) from error
                methods.append(added[0])
                parts.append(added[1])
            metadata |= header.metadata
            continue
        container = _floats(open_file(file))
        try:
            rest, bundled = without_bundle(container)
            if bundled:
                parts.append(adapter_of(bundled, container, skeleton, trigger))
                methods.append(TEXTUAL_INVERSION.name)
            if rest.entries or not bundled:
                kind, part = _parse(rest, skeleton, trigger, method)
                parts.append(part)
                methods.append(kind)
        except MisfitError as error:
            raise _named(error, file, container.header, skeleton) from error
        metadata |= container.metadata
    try:
        adapter = merged(parts)
    except ValueError as error:
        raise InputError(str(path), str(error), "put each adapter into a folder of its own") from error
    adapter = _some(adapter, path)
    kinds = {part.kind for part in parts if part.kind}
    if len(kinds) > 1:
        problem = f"mixes files of {' and '.join(sorted(kinds))}"
        raise InputError(str(path), problem, "put each adapter into a folder of its own")
    if method != LORA.name and set(methods) == {method}:  # a package's own reader may build on another method's
        return Read(adapter, str(method), files, metadata)
    return Read(adapter, kinds.pop() if kinds else _method(methods, path), files, metadata)


def _some(adapter: Adapter, path: Path) -> Adapter:
    """Return an adapter. Raises InputError where it changes nothing."""
    if not adapter.updates and not adapter.tokens and not adapter.rows:
        raise InputError(str(path), "holds nothing that would change the base", "fetch it again")
    return adapter


def _named(error: MisfitError, path: Path, header: Header, skeleton: Skeleton) -> MisfitError:
    """Return the error that an adapter does not fit, with the kind of base that it was made for where that is known."""
    kind, own = made_for(header), kind_of(skeleton)
    if kind is None or own in kind.split(" or "):
        return error
    return MisfitError(
        str(path), f"is for {kind}, and the base is {own} ({error.problem})", next(iter(bases_for(kind)), None)
    )


def load_adapter(folder: Path, skeleton: Skeleton) -> Adapter:
    """Read an adapter of a run folder; its card was checked before, perhaps on another node.

    Raises:
        InputError: as `read_adapter`; or the folder does not hold the weights that its card names.
    """
    with local_copy(folder, below=True) as copy:
        try:
            card = json.loads((copy / CARD).read_text(encoding="utf-8"))
        except OSError as error:
            problem = f"cannot be read on node {socket.gethostname()} ({error.strerror})"
            raise InputError(str(folder / CARD), problem, "give an --output that every node can reach") from error
        read = read_adapter(copy, skeleton, token_of(card), method_of(card))
        if adapter_digest(read.files) != card["sha256"]:
            raise InputError(str(folder), f"is not what {CARD} describes", "train or fetch it again")
        return read.adapter


def method_of(card: Mapping[str, Any]) -> str:
    """Return the method that an adapter's card names as the one of its files; a null adapter's is what trained it."""
    return str(card.get("trained_by") or card["method"])


def token_of(card: Mapping[str, Any]) -> str | None:
    """Return what an adapter's card calls its only learned token, where it names one: of Textual Inversion, always."""
    inverted = method_of(card) == TEXTUAL_INVERSION.name
    return card.get("token") or (card.get("phrase") if inverted else None)


def foreign_card(name: str, category: str | None, token: str | None, read: Read, base_sha256: str) -> dict[str, Any]:
    """Return the card of an adapter that was brought along as bare files and checked against this base.

    Args:
        category: the subject's, if the user knows it; without it, no prompt counts as the subject's own.
        token: the user's name for the adapter's learned token.
    """
    return {
        "name": name,
        "method": read.method,
        "subject": name,
        "subject_category": category or "unknown",
        "base_sha256": base_sha256,
        "sha256": adapter_digest(read.files),
        "files": [*names_of(with_config(read.files))],
        "token": token,
        "phrase": token or next((t.trigger for t in read.adapter.tokens), None),
        "licence": read.licence or None,
        "consent": read.consent or None,
        "metadata": dict(read.metadata),
    }


def _floats(file: Container) -> Container:
    """Return the container with all tensors in float32.

    Raises:
        InputError: a tensor holds something other than floats, or values that are not finite.
    """
    for key, value in _tensors(file.entries):
        # A1111 keeps a token's id as an integer, and so does diffusers' conversion to kohya's layout with alpha.
        single = key.endswith((".alpha", ".on_input")) and value.numel() == 1  # LyCORIS's IA3 has truth values
        number = single or key.partition(".")[0] == "string_to_token"
        if not (value.is_floating_point() or number) or value.is_sparse or value.is_quantized:
            raise InputError(str(file.path), f"{key} holds {value.dtype} instead of plain floats", "fetch it again")
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


def _parse(file: Container, skeleton: Skeleton, trigger: str | None, expected: str | None) -> tuple[str, Adapter]:
    """Return the method of a file and what it holds, from the first reader whose layout it has."""
    keys = list(file.entries)
    if not keys:
        raise InputError(str(file.path), "holds no tensors", "fetch it again")
    for name in _names(expected):
        part = _reader(name)(file, skeleton, trigger)
        if part is not None:
            return name, part
    raise _unknown(file)


def _names(expected: str | None) -> Iterator[str]:
    """Yield the methods whose readers are asked, one after another: the expected one, raymap's own, then all others.

    Methods of installed packages are looked for only where none of raymap's own reads a file.
    """
    own = [name for name in reversed(METHODS) if name != expected]
    yield from ([expected] if expected else [])
    yield from own
    yield from (name for name in method_names() if name not in own and name != expected)


def _of_packages(path: Path, skeleton: Skeleton, trigger: str | None) -> tuple[str, Adapter] | None:
    """Return the method of an installed package that reads a file, and what it holds; None where there is none."""
    names = [name for name in method_names() if name not in METHODS]
    if not names:  # nearly always: a file of gigabytes is not read for nothing
        return None
    file = _floats(open_file(path))
    parts = ((name, _reader(name)(file, skeleton, trigger)) for name in names)
    return next(((name, part) for name, part in parts if part is not None), None)


def _unknown(file: Container) -> InputError:
    """Return the error for a file that no reader takes, with what it is where its tensors tell."""
    kind, shapes = kind_in(file.header, file.path), file.header.shapes
    first, shape = next(iter(shapes.items()), (next(iter(file.entries)), ()))
    if kind is not None and kind.is_base:
        return InputError(str(file.path), f"is {kind.name}, and no safetensors file", "convert it to safetensors")
    if kind is not None and not kind.is_adapter:
        problem = f"is {kind.name}, not an adapter of a base's weights"
        return InputError(str(file.path), problem, "give a file of a kind that docs/adapters.md lists")
    if kind is not None and not kind.is_read:
        problem = f"is {kind.name}, which raymap does not read"
        return InputError(str(file.path), problem, "give a file of a kind that docs/adapters.md lists")
    if kind is None and shapes and all(len(own) in (1, 2) and "." not in name for name, own in shapes.items()):
        problem = f"holds {first!r}, {shape}, and nothing in it says that this is a learned token"
        return InputError(
            str(file.path), problem, "if it is one, give its trigger (--trigger, or `trigger:` in a study)"
        )
    problem = f"has no known layout (first key: {first!r})"
    if kind is not None:
        problem = f"is {kind.name} of no known layout (first key: {first!r})"
    return InputError(str(file.path), problem, "give a file of one of the layouts that docs/adapters.md lists")


def _reader(method: str) -> Reader:
    name = known_method(method).reader
    try:
        read: Reader = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        problem = f"its reader {name} cannot be imported ({error})"
        raise InputError(f"method {method}", problem, "correct the package that has the method") from error
    return read


def _method(methods: list[str], path: Path) -> str:
    """Return the method of an adapter from those of its files.

    A method whose adapters have tokens beside their weights keeps them in files of Textual Inversion's layouts.
    """
    kinds = set(methods)
    if kinds != {TEXTUAL_INVERSION.name}:
        kinds.discard(TEXTUAL_INVERSION.name)
    if len(kinds) > 1:
        problem = f"mixes files of {' and '.join(sorted(kinds))}"
        raise InputError(str(path), problem, "put each adapter into a folder of its own")
    return kinds.pop()
