"""Fetches the reference pictures of a catalogue's subjects: each file whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from raymap.errors import IncompleteRunError, InputError
from raymap.personalize.provenance import REFERENCES_CARD, Origin, Provenance, joined
from raymap.personalize.references import read_reference
from raymap.store.files import write_atomically
from raymap.subjects.catalogue import Catalogue, Entry

TIMEOUT = 60.0
"""Seconds without a byte after which a host counts as gone."""
PASSING = (408, 425, 429)
"""HTTP statuses below 500 that another try may mend."""
PICTURES = (".jpg", ".jpeg", ".png", ".webp")

State = Literal["fetched", "there", "left out", "missing", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a subject; `said` is one sentence for the user."""

    subject: str
    state: State
    said: str

    @property
    def usable(self) -> bool:
        """Whether the subject's pictures are in the folder now."""
        return self.state in ("fetched", "there")


def fetch(catalogue: Catalogue, entries: list[Entry], folder: Path, research_only: bool) -> Iterator[Outcome]:
    """Bring subjects' pictures into `folder/<subject>/`, numbered from 1, with a card; yield each subject's outcome.

    What is there already is not fetched again. A subject that fails does not keep the others from being fetched.

    Raises:
        IncompleteRunError: a host cannot be reached; the same call goes on.
        StorageError: a file cannot be written.
    """
    for entry in entries:
        target = folder / entry.name
        if entry.own is not None:
            yield _own(entry, target)
            continue
        doubts = catalogue.doubts(entry)
        try:
            lacking = [number for number, _ in enumerate(entry.files, 1) if not _is_there(entry, number, target)]
            if doubts and lacking and not research_only:
                said = f"{'; '.join(doubts)}; give --research-only if you use it for research and pass nothing on"
                yield Outcome(entry.name, "left out", said)
                continue
            for number in lacking:
                _bring(catalogue, entry, number, target)
        except InputError as error:
            yield Outcome(entry.name, "failed", str(error))
            continue
        _write_card(catalogue, entry, target)
        state: State = "fetched" if lacking else "there"
        yield Outcome(entry.name, state, f"{len(entry.files)} pictures in {target}")


def download(url: str) -> bytes:
    """Return what a URL holds; proxies are taken from the environment.

    Raises:
        InputError: the host answers that it is not to be had.
        IncompleteRunError: no answer, or one that may change.
    """
    request = Request(url, headers={"User-Agent": "raymap"})
    again = "try again: the same command goes on"
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
            return content
    except HTTPError as error:
        if error.code >= 500 or error.code in PASSING:
            raise IncompleteRunError(f"{url}: the host answers {error.code} {error.reason}; {again}") from error
        problem = f"is not to be had ({error.code} {error.reason})"
        raise InputError(url, problem, "name another place in a catalogue of yours (--catalogue)") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise IncompleteRunError(f"{url}: cannot be reached ({reason}); {again}") from error


def _own(entry: Entry, target: Path) -> Outcome:
    pictures = [path for path in target.glob("*") if path.suffix.lower() in PICTURES]
    if pictures:
        return Outcome(entry.name, "there", f"{len(pictures)} pictures of your own in {target}")
    said = f"{entry.own}; put three to six pictures of your own into {target}, as 1.jpg, 2.jpg, 3.jpg"
    return Outcome(entry.name, "missing", said)


def _is_there(entry: Entry, number: int, target: Path) -> bool:
    """Return whether a picture is in the folder.

    Raises:
        InputError: another file has its name.
    """
    picture = entry.files[number - 1]
    path = target / picture.name(number)
    if not path.exists():
        return False
    if picture.sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != picture.sha256:
        raise InputError(str(path), "is not the picture that the catalogue pins", "move it away or give another --to")
    return True


def _bring(catalogue: Catalogue, entry: Entry, number: int, target: Path) -> None:
    """Fetch one picture, check it, and put it into the folder."""
    picture = entry.files[number - 1]
    path, url = target / picture.name(number), catalogue.sources[picture.source].at(picture.path)
    content = download(url)
    found = hashlib.sha256(content).hexdigest()
    if picture.sha256 is not None and found != picture.sha256:
        problem = f"has the SHA-256 {found}, the catalogue says {picture.sha256}, so {path} was not written"
        raise InputError(url, problem, "try again; if it stays so, the file has changed: pin another one (--catalogue)")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        copy.write_bytes(content)
        try:
            read_reference(copy, 64)
        except InputError as error:
            problem = f"is no picture that a training could use, so {path} was not written"
            raise InputError(url, problem, "name another file in a catalogue of yours (--catalogue)") from error
    write_atomically(path, content)


def _write_card(catalogue: Catalogue, entry: Entry, target: Path) -> None:
    """Write the card beside a subject's pictures, unless it is there."""
    sources = catalogue.sources_of(entry)
    files = {}
    for number, picture in enumerate(entry.files, 1):
        name, source = picture.name(number), catalogue.sources[picture.source]
        digest = hashlib.sha256((target / name).read_bytes()).hexdigest()
        files[name] = Origin(
            sha256=digest, url=source.at(picture.path), source=source.pinned, credit=picture.credit
        )
    card = Provenance(
        licence=joined(source.licence for source in sources),
        consent=joined(source.consent for source in sources),
        redistribution=joined(source.redistribution for source in sources),
        cite=tuple(dict.fromkeys(source.cite for source in sources if source.cite)),
        files=files,
    )
    content = (card.model_dump_json(indent=2) + "\n").encode()
    path = target / REFERENCES_CARD
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
