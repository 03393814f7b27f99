"""Catalogues of subjects: YAML files that list sources, pinned and with their terms, and the images of each subject."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import quote

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from raymap.errors import InputError
from raymap.study.subject import Name, SubjectCategory

PAPER = Path(__file__).with_name("paper.yaml")
"""The built-in catalogue: the subjects of jobs/paper.yaml."""

Text = Annotated[str, Field(min_length=1)]
Redistribution = Literal["allowed", "forbidden", "unknown"]
Consent = Literal["not needed", "given", "none known"]
"""Of the people in an image; not needed if there are none, or only those of old paintings."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """A place at one revision, and the terms of its files; `{revision}` and `{path}` in `url` are filled in."""

    page: Text
    revision: Text
    url: Annotated[str, Field(pattern=r"^https?://.*\{path\}")]
    licence: Text
    redistribution: Redistribution
    consent: Consent
    cite: Text | None = None

    def at(self, path: str) -> str:
        """Return the URL of a file."""
        return self.url.replace("{revision}", quote(self.revision)).replace("{path}", quote(path))

    @property
    def pinned(self) -> str:
        """The page and its revision, as messages print them."""
        return f"{self.page} at {self.revision}"


class ImageFile(_Frozen):
    """An image file of a source: its path there, its SHA-256 if it is known, and whose it is."""

    source: Text
    path: Annotated[str, Field(pattern=r"\.(jpe?g|png|webp)$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    credit: Text | None = None

    def name(self, number: int) -> str:
        """Return the file's name in a folder of references: its number and its own suffix."""
        return f"{number}{PurePosixPath(self.path).suffix}"


class Entry(_Frozen):
    """A subject: its image files, or, in `own`, the reason why users have to bring images of their own."""

    name: Name
    category: SubjectCategory
    class_word: Text
    files: tuple[ImageFile, ...] = ()
    own: Text | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.files) == bool(self.own):
            raise ValueError(f"{self.name}: a subject has either `files:` or `own:`")
        return self


class Catalogue(_Frozen):
    """Sources by key, and subjects in order."""

    sources: dict[str, Source]
    subjects: tuple[Entry, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [entry.name for entry in self.subjects]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"subjects: {name!r} is listed twice")
        for entry in self.subjects:
            for file in entry.files:
                if file.source not in self.sources:
                    raise ValueError(f"{entry.name}: there is no source {file.source!r}")
        return self

    def sources_of(self, entry: Entry) -> list[Source]:
        """Return the sources of a subject's files, each once."""
        return [self.sources[key] for key in dict.fromkeys(file.source for file in entry.files)]

    def doubts(self, entry: Entry) -> list[str]:
        """Return why a subject should not be fetched unless the user insists: terms that forbid it or are not known."""
        sources = self.sources_of(entry)
        doubts = [f"redistribution {s.redistribution} (licence: {s.licence})" for s in sources
                  if s.redistribution != "allowed"]  # fmt: skip
        doubts += [f"real people whose consent is not known ({s.page})" for s in sources if s.consent == "none known"]
        return doubts

    def chosen(self, names: list[str]) -> list[Entry]:
        """Return the subjects with these names, or all subjects if no name is given.

        Raises:
            InputError: no subject has one of the names.
        """
        entries = {entry.name: entry for entry in self.subjects}
        for name in names:
            if name not in entries:
                raise InputError(f"subject {name}", "is not in the catalogue", f"give one of {', '.join(entries)}")
        return [entries[name] for name in dict.fromkeys(names)] if names else list(self.subjects)


def read_catalogue(path: Path = PAPER) -> Catalogue:
    """Read a catalogue of subjects.

    Raises:
        InputError: it cannot be read, or is not a catalogue.
    """
    remedy = "correct it (docs/subjects.md shows a catalogue)"
    try:
        return Catalogue.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = f"cannot be read as YAML ({' '.join(str(error).split())})"
        raise InputError(str(path), problem, remedy) from error
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}".lstrip(": ") for e in error.errors()]
        raise InputError(str(path), " | ".join(lines), remedy) from error
