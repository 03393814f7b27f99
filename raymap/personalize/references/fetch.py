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
from raymap.personalize.references.catalogue import Catalogue, Entry, Picture
from raymap.personalize.references.provenance import REFERENCES_CARD, Origin, Provenance, joined
from raymap.personalize.references.read import read_reference
from raymap.store.files import write_atomically

TIMEOUT = 60.0
"""Seconds without a byte after which a host counts as gone."""
PASSING = (408, 425, 429)
"""HTTP statuses below 500 that another try may mend."""
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
ELSEWHERE = "name another place in a catalogue of yours (--catalogue)"

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
            digests = _there(entry, target)
            lacking = [number for number in range(1, len(entry.files) + 1) if number not in digests]
            if doubts and lacking and not research_only:
                said = f"{'; '.join(doubts)}; give --research-only if you use it for research and pass nothing on"
                yield Outcome(entry.name, "left out", said)
                continue
            for number in lacking:
                content = _picture(catalogue, entry.files[number - 1], target / entry.files[number - 1].name(number))
                digests[number] = hashlib.sha256(content).hexdigest()
                _write_card(catalogue, entry, digests, target)  # first, so that no picture lies there without terms
                write_atomically(target / entry.files[number - 1].name(number), content)
        except InputError as error:
            yield Outcome(entry.name, "failed", str(error))
            continue
        _write_card(catalogue, entry, digests, target)
        yield Outcome(entry.name, "fetched" if lacking else "there", f"{len(digests)} pictures in {target}")


def download(url: str, path: Path) -> bytes:
    """Return what a URL holds; proxies are taken from the environment. `path` is what complaints name beside it.

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
        said = f"{error.code} {error.reason}"
        if error.code >= 500 or error.code in PASSING:
            raise IncompleteRunError(f"{path}: the host of {url} answers {said}; {again}") from error
        raise InputError(str(path), f"{url} is not to be had ({said})", ELSEWHERE) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise IncompleteRunError(f"{path}: {url} cannot be fetched ({reason}); {again}") from error


def _own(entry: Entry, target: Path) -> Outcome:
    pictures = [path for path in target.glob("*") if path.suffix.lower() in PICTURES]
    if pictures:
        return Outcome(entry.name, "there", f"{len(pictures)} pictures of your own in {target}")
    said = f"{entry.own}; put three to six pictures of your own into {target}, as 1.jpg, 2.jpg, 3.jpg"
    return Outcome(entry.name, "missing", said)


def _there(entry: Entry, target: Path) -> dict[int, str]:
    """Return number -> SHA-256 of a subject's pictures that are in its folder.

    Raises:
        InputError: another file has the name of one.
    """
    digests = {}
    for number, picture in enumerate(entry.files, 1):
        path = target / picture.name(number)
        if path.exists():
            digests[number] = hashlib.sha256(path.read_bytes()).hexdigest()
            if picture.sha256 not in (None, digests[number]):
                problem = "is not the picture that the catalogue pins"
                raise InputError(str(path), problem, "move it away or give another --to")
    return digests


def _picture(catalogue: Catalogue, picture: Picture, path: Path) -> bytes:
    """Fetch a picture that is to be `path`, and check that it is the one asked for, and a picture."""
    url = catalogue.sources[picture.source].at(picture.path)
    content = download(url, path)
    found = hashlib.sha256(content).hexdigest()
    if picture.sha256 not in (None, found):
        problem = f"{url} has the SHA-256 {found}, where the catalogue pins {picture.sha256}"
        raise InputError(str(path), problem, f"try again; if the file has changed, {ELSEWHERE}")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        copy.write_bytes(content)
        try:
            read_reference(copy, 64)
        except InputError as error:
            raise InputError(str(path), f"{url} holds no picture to train on", ELSEWHERE) from error
    return content


def _write_card(catalogue: Catalogue, entry: Entry, digests: dict[int, str], target: Path) -> None:
    """Write the card beside a subject's pictures, unless it is there."""
    sources = catalogue.sources_of(entry)
    files = {}
    for number, digest in sorted(digests.items()):
        picture = entry.files[number - 1]
        source = catalogue.sources[picture.source]
        url = source.at(picture.path)
        files[picture.name(number)] = Origin(sha256=digest, url=url, source=source.pinned, credit=picture.credit)
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
