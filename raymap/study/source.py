"""Where an adapter comes from, by the name that a user gives it: a path, a URL, or an id of the model hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

SUFFIXES = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt")
"""How the names of adapter files end; of files that differ in this alone, the first is taken."""
HUB = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[^:]+))?")
SECRET = re.compile(r"token|key|secret|password|signature|credential", re.IGNORECASE)
"""What the names of a URL's parameters hold whose values are not to be written down."""


@dataclass(frozen=True)
class HubFile:
    """An id of the model hub, of a revision and of one file, if they are named."""

    id: str
    revision: str | None = None
    file: str | None = None


def is_url(name: str) -> bool:
    """Return whether a name is a URL."""
    return "://" in name


def hub_file(name: str, folder: Path = Path()) -> HubFile | None:
    """Return what a name means on the model hub: `org/name`, `org/name:FILE` or `org/name@revision:FILE`.

    None for a URL, and for what lies in the folder or would if it were there: a name with other than one slash, or one
    that begins with a dot or ends as files do.

    Args:
        folder: what relative paths are relative to.
    """
    match = HUB.fullmatch(name)
    if is_url(name) or match is None or match["id"].endswith(SUFFIXES) or (folder / name).exists():
        return None
    return HubFile(match["id"], match["revision"], match["file"])


def is_remote(name: str, folder: Path = Path()) -> bool:
    """Return whether a name means something that is fetched first."""
    return is_url(name) or hub_file(name, folder) is not None


def file_stem(name: str) -> str:
    """Return what a file is called without its suffix, or an id of the hub without its organisation."""
    hub = hub_file(name)
    if hub:
        return Path(hub.file).stem if hub.file else hub.id.partition("/")[2]
    return Path(urlsplit(name).path if is_url(name) else name).stem


def without_secrets(name: str) -> str:
    """Return a name as it may be written down: a URL without user, password, and values that open a door."""
    if not is_url(name):
        return name
    parts = urlsplit(name)
    query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if not SECRET.search(key)]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(query), parts.fragment))
