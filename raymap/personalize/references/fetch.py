"""Fetches the reference images of a catalogue's subjects: each file whole and checked, or not at all."""

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
from raymap.personalize.references.catalogue import Catalogue, Entry, ImageFile
from raymap.personalize.references.provenance import REFERENCES_CARD, Origin, Provenance, joined
from raymap.personalize.references.read import read_reference
from raymap.store.files import write_atomically

TIMEOUT = 60.0
"""Seconds without a byte after which a host counts as unreachable."""
PASSING = (408, 425, 429)
"""HTTP statuses below 500 after which another try may succeed."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
ELSEWHERE = "give another place in a catalogue of your own (--catalogue)"

State = Literal["fetched", "there", "left out", "missing", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a subject; `said` is a sentence for the user."""

    subject: str
    state: State
    said: str

    @property
    def usable(self) -> bool:
        """Whether the subject's images are in the folder now."""
        return self.state in ("fetched", "there")


def fetch(catalogue: Catalogue, entries: list[Entry], folder: Path, research_only: bool) -> Iterator[Outcome]:
    """Write subjects' images into `folder/<subject>/`, numbered from 1, with a card; yield each subject's outcome.

    Images that are there already are not fetched again. If a subject fails, the others are fetched all the same.

    Args:
        research_only: the user has stated that the images are for research and will not be passed on, so that subjects
            with doubtful terms are fetched too.

    Raises:
        IncompleteRunError: a host cannot be reached; the same call continues.
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
                path = target / entry.files[number - 1].name(number)
                content = _fetched(catalogue, entry.files[number - 1], path)
                digests[number] = hashlib.sha256(content).hexdigest()
                _write_card(catalogue, entry, digests, target)  # first, so that no image is there without its terms
                write_atomically(path, content)
        except InputError as error:
            yield Outcome(entry.name, "failed", str(error))
            continue
        _write_card(catalogue, entry, digests, target)
        yield Outcome(entry.name, "fetched" if lacking else "there", f"{len(digests)} images in {target}")


def download(url: str, path: Path) -> bytes:
    """Return the content of a URL; proxies are taken from the environment. Errors also name `path`, its destination.

    Raises:
        InputError: the host answers that the content is not available.
        IncompleteRunError: the host does not answer, or its answer may change.
    """
    request = Request(url, headers={"User-Agent": "raymap"})
    again = "try again: the same command continues"
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
            return content
    except HTTPError as error:
        said = f"{error.code} {error.reason}"
        if error.code >= 500 or error.code in PASSING:
            raise IncompleteRunError(f"{path}: the host of {url} answers {said}; {again}") from error
        raise InputError(str(path), f"{url} is not available ({said})", ELSEWHERE) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise IncompleteRunError(f"{path}: {url} cannot be fetched ({reason}); {again}") from error


def _own(entry: Entry, target: Path) -> Outcome:
    images = [path for path in target.glob("*") if path.suffix.lower() in SUFFIXES]
    if images:
        return Outcome(entry.name, "there", f"{len(images)} images of your own in {target}")
    said = f"{entry.own}; put three to six images of your own into {target}, as 1.jpg, 2.jpg, 3.jpg"
    return Outcome(entry.name, "missing", said)


def _there(entry: Entry, target: Path) -> dict[int, str]:
    """Return number -> SHA-256 of the subject's images that are in its folder already.

    Raises:
        InputError: a file of that name is not the image.
    """
    digests = {}
    for number, file in enumerate(entry.files, 1):
        path = target / file.name(number)
        if path.exists():
            digests[number] = hashlib.sha256(path.read_bytes()).hexdigest()
            if file.sha256 not in (None, digests[number]):
                problem = "is not the image that the catalogue pins"
                raise InputError(str(path), problem, "move it elsewhere, or give another --to")
    return digests


def _fetched(catalogue: Catalogue, file: ImageFile, path: Path) -> bytes:
    """Fetch the image that will be at `path`; check that it is the pinned file, and that it is an image."""
    url = catalogue.sources[file.source].at(file.path)
    content = download(url, path)
    sha256 = hashlib.sha256(content).hexdigest()
    if file.sha256 not in (None, sha256):
        problem = f"{url} has the SHA-256 {sha256}, but the catalogue pins {file.sha256}"
        raise InputError(str(path), problem, f"try again; if the file has changed, {ELSEWHERE}")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        copy.write_bytes(content)
        try:
            read_reference(copy, 64)
        except InputError as error:
            raise InputError(str(path), f"{url} is not an image that can be trained on", ELSEWHERE) from error
    return content


def _write_card(catalogue: Catalogue, entry: Entry, digests: dict[int, str], target: Path) -> None:
    """Write the card beside a subject's images, unless it is there already."""
    sources = catalogue.sources_of(entry)
    files = {}
    for number, digest in sorted(digests.items()):
        file = entry.files[number - 1]
        source = catalogue.sources[file.source]
        url = source.at(file.path)
        files[file.name(number)] = Origin(sha256=digest, url=url, source=source.pinned, credit=file.credit)
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
