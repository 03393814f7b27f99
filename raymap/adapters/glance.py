"""What the headers of an adapter's files tell, without its numbers: torch is loaded for pickles alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from raymap.adapters.card import adapter_files, components_in, with_config
from raymap.adapters.keys import unread_kind
from raymap.adapters.origin import BASES, kind_of, said_by_header, told_by_layers
from raymap.adapters.said import BASE, CONSENT, LICENCE, TITLE, first, settings, tags, trigger_words
from raymap.base.families.registry import family_at
from raymap.base.file_kinds import INVERSION, Kind, kind_in
from raymap.base.header import Header, read_header
from raymap.base.model import Base
from raymap.base.shapes import INDEX
from raymap.errors import InputError

WHOLE = Kind("a diffusers folder", is_base=True)
MARKS = ("adapter.json", "adapter_config.json", INDEX)
"""Files that make a folder one adapter, or a base."""
BEGINNINGS = (
    "pytorch_lora_weights", "pytorch_custom_diffusion_weights", "learned_embeds", "adapter_model", "token_embedding.",
    "delta.bin",
)  # fmt: skip
"""How files are called that make a folder one adapter."""


@dataclass(frozen=True)
class Glance:
    """What the headers of an adapter's files tell; `problem` says why where they cannot be read or are no adapter's.

    `header_base` and `layer_base` are the kinds of base for which it was made, as its header says and as the names and
    shapes of its tensors tell. `said_base` is the header's own word for it.
    """

    path: Path
    kind: Kind | None = None
    problem: str | None = None
    bytes: int = 0
    tensors: int = 0
    ranks: tuple[int, ...] = ()
    header_base: str | None = None
    layer_base: str | None = None
    said_base: str = ""
    title: str = ""
    licence: str = ""
    consent: str = ""
    trigger_words: tuple[str, ...] = ()
    tags: tuple[tuple[str, int], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def made_for(self) -> str | None:
        """The kind of base for which it was made, or two joined by "or": its layers are believed before its header."""
        return self.layer_base or self.header_base

    @property
    def warnings(self) -> tuple[str, ...]:
        """What in the header is to be wary of."""
        if self.header_base and self.layer_base and self.header_base not in self.layer_base.split(" or "):
            return (f"its header names {self.said_base!r}, but its layers are those of {self.layer_base}",)
        return ()

    @property
    def may_be_read(self) -> bool:
        """Whether its numbers may tell more: its header could be read, and is not that of another kind of file."""
        kind = self.kind
        return self.tensors > 0 and (kind is None or (kind.is_read and (kind.is_adapter or kind.is_base)))

    def held_against(self, kind: str) -> Glance:
        """Return it with the problem that it was made for another kind of base than this one, if that is so."""
        if self.problem or self.made_for is None or kind in self.made_for.split(" or "):
            return self
        return replace(self, problem=f"is for {self.made_for}, and the base is {kind}")


PEFT = ("adapter_model", "pytorch_lora_weights")
"""How trainers call the file in each folder of an adapter that has one for every component."""


def glance(path: Path) -> Glance:
    """Return what the headers of an adapter's files tell; of a folder's files together."""
    if (path / INDEX).is_file():
        return Glance(path, WHOLE, bytes=_size(adapter_files(path)), layer_base=_kind_of(path))
    try:
        files = adapter_files(path)
        headers = [header_of(file) for file in files]
    except InputError as error:
        return Glance(path, problem=str(error).removeprefix(f"{path}: "), bytes=_size((path,)))
    kinds = [kind for file, header in zip(files, headers, strict=True) if (kind := kind_in(header, file))]
    kinds.sort(key=lambda kind: kind == INVERSION)  # tokens beside something else belong to it
    kind = kinds[0] if kinds else None
    metadata = {key: value for header in headers for key, value in header.metadata.items()}
    problem = None
    if kind is not None and not kind.is_adapter and not kind.is_base:
        problem = f"is {kind.name}, not an adapter of a base's weights"
    elif kind is not None and not kind.is_read:
        problem = f"is {kind.name}, which raymap does not read"
    elif unread := next((found for header in headers if (found := unread_kind(header.patterns))), None):
        problem = f"is {unread[1]}, which raymap does not read"
    elif kind == INVERSION and (out := [name for name in headers[0].shapes if name.endswith("_out")]):
        problem = f"holds {out[0]!r}, vectors for a text encoder's output, which raymap does not apply"
    elif kind is None:
        problem = "is of no known kind: nothing in it says what its tensors are"
    layers = Header({name: shape for header in headers for name, shape in header.shapes.items()}, metadata)
    return Glance(
        path,
        kind,
        problem,
        bytes=_size(with_config(files)),
        tensors=len(layers.shapes),
        ranks=_ranks(layers),
        header_base=said_by_header(metadata),
        layer_base=told_by_layers(layers) if kind else None,
        said_base=first(metadata, BASE),
        title=first(metadata, TITLE),
        licence=first(metadata, LICENCE),
        consent=first(metadata, CONSENT),
        trigger_words=trigger_words(metadata),
        tags=tuple(tags(metadata)),
        settings=settings(metadata),
    )


def _kind_of(folder: Path) -> str | None:
    """Return the kind of a base's folder; None where nothing tells."""
    try:
        family = family_at(folder).title
        return family if family in BASES else kind_of(Base.at(folder).skeleton)
    except (InputError, OSError, ValueError, KeyError, AttributeError):  # parts of it are missing
        return None


def header_of(path: Path) -> Header:
    """Return names and shapes of a file's tensors; those of a pickle are read with it.

    Raises:
        InputError: as `read_header`, or as `raymap.adapters.container.open_file`.
    """
    if path.suffix in (".safetensors", ".sft"):
        return read_header(path)
    from raymap.adapters.container import open_file  # loads torch, which headers do not need

    return open_file(path, mapped=True).header


def adapters_in(path: Path) -> list[Path]:
    """Return the adapters of a path: itself, or, of a folder that holds several, each file and each folder of one."""
    if not path.is_dir():
        return [path]
    names = [entry.name for entry in path.iterdir()]
    divided = [folder for folder in components_in(path) if any(file.stem in PEFT for file in folder.iterdir())]
    if divided or any(name in MARKS or name.startswith(BEGINNINGS) for name in names):
        return [path]
    try:
        files = list(adapter_files(path))
    except InputError:
        files = []
    if any(file.parent != path for file in files):  # one folder for each component
        return [path]
    inner = [found for entry in sorted(path.iterdir()) if _is_plain(entry) for found in adapters_in(entry)]
    inner = [one for one in inner if one.is_file() or _holds_files(one)]
    return files + inner or [path]


def _is_plain(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink() and not entry.name.startswith(".")


def _holds_files(folder: Path) -> bool:
    try:
        return bool(adapter_files(folder))
    except InputError:
        return (folder / INDEX).is_file()


def _ranks(header: Header) -> tuple[int, ...]:
    """Return the ranks of low-rank factors."""
    downs = ("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight", "hada_w1_b", "lokr_w2_b")
    return tuple(sorted({shape[0] for name, shape in header.shapes.items() if name.endswith(downs) and shape}))


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())
