"""Adapters of the model hub and of URLs, fetched once on the machine that asks for them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from raymap.adapters.card import CARD, CONFIG
from raymap.base.folder import cached
from raymap.base.header import is_safetensors, other_kind
from raymap.errors import InputError
from raymap.study.source import SUFFIXES, HubFile, hub_file, is_url, without_secrets

SHOWN = 8
"""How many files of a hub id are named where one has to be chosen."""
TIMEOUT = 60
"""Seconds after which a silent server is given up."""
KNOWN = ("pytorch_lora_weights", "adapter_model", "learned_embeds", "pytorch_custom_diffusion_weights")
"""How files are called that make a hub id one adapter, whatever else it holds."""


def local_adapter(name: str, folder: Path = Path()) -> Path:
    """Return an adapter on this machine, by its path, its URL or its id on the model hub.

    Args:
        name: a path, a URL of a file, `org/name`, or `org/name:FILE`; `org/name@revision` names a revision.
        folder: what relative paths are relative to.

    Raises:
        InputError: it cannot be fetched, holds no adapter file, or holds several of which none was chosen.
    """
    if is_url(name):
        return _from_url(name)
    hub = hub_file(name, folder)
    return folder / name if hub is None else _from_hub(hub, name)


def _from_hub(hub: HubFile, name: str) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download  # takes half a second, and paths do not need it
    from huggingface_hub.errors import EntryNotFoundError

    own: dict[str, Any] = {"repo_id": hub.id, "revision": hub.revision}
    try:
        if hub.file:
            file = Path(hf_hub_download(filename=hub.file, **own))
            if file.name.startswith("adapter_model"):
                with contextlib.suppress(EntryNotFoundError):  # without one, alpha is the rank
                    hf_hub_download(filename=str(PurePosixPath(hub.file).with_name(CONFIG)), **own)
            return file
        chosen = _chosen(_listed(own), name)
        folder = Path(snapshot_download(allow_patterns=list(chosen), **own))
    except InputError:
        raise
    except Exception as error:  # whatever the hub's client raises without a network, a right or an entry
        problem = f"is no path here, and the model hub does not give it ({type(error).__name__})"
        raise InputError(f"adapter {name}", problem, "check the path, or the hub's id and the network") from error
    weights = [file for file in chosen if file not in (CARD, CONFIG)]
    return folder / weights[0] if len(weights) == 1 else folder


def _listed(own: dict[str, Any]) -> list[str]:
    """Return the files of a hub id; without a network, those that were fetched before."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return list(HfApi().list_repo_files(**own))
    except (OfflineModeIsEnabled, OSError):
        folder = Path(snapshot_download(local_files_only=True, **own))
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _chosen(files: Sequence[str], name: str) -> tuple[str, ...]:
    """Return which files of a hub id are its adapter: the only one, or those by the names that trainers give."""
    top = [file for file in files if "/" not in file]
    if "model_index.json" in top:
        raise InputError(f"adapter {name}", "is a base, not an adapter", "give it as --base")
    stems: dict[str, str] = {}
    for suffix in SUFFIXES:
        for file in sorted(top):
            if file.endswith(suffix):
                stems.setdefault(file.removesuffix(suffix), file)
    known = {stem: file for stem, file in stems.items() if stem.startswith(KNOWN)}
    tokens = {stem: file for stem, file in stems.items() if known and stem.endswith(("_emb", "_embeddings"))}
    weights = [*(known | tokens or stems).values()]
    if not weights:
        raise InputError(f"adapter {name}", "holds no adapter file", f"give an id that does, or {name}:FILE")
    if len(weights) > 1 and not known:
        more = f" and {len(weights) - SHOWN} more" if len(weights) > SHOWN else ""
        problem = f"holds {len(weights)} adapter files ({', '.join(weights[:SHOWN])}{more})"
        raise InputError(f"adapter {name}", problem, f"choose one, as {name}:{weights[0]}")
    return (*weights, *(file for file in (CARD, CONFIG) if file in top))


def _from_url(url: str) -> Path:
    """Return the file of a URL. It keeps the name that its server gives it, which is the trigger of many tokens."""
    shown, target = without_secrets(url), cached(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
                new = Path(temporary) / "new"
                new.mkdir()
                try:
                    file = _download(url, new)
                except Exception as error:  # whatever a server, a network or fsspec's client raises
                    problem = f"cannot be fetched ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
                    raise InputError(shown, problem, "check the URL and this machine's credentials") from error
                with file.open("rb") as opened:
                    start = opened.read(64)
                plain = is_safetensors(start) or start.startswith((b"PK", b"\x80"))
                if not plain and (kind := other_kind(start)):
                    raise InputError(shown, *kind)
                new.rename(target)
    return next(path for path in target.iterdir() if path.is_file())


def _download(url: str, folder: Path) -> Path:
    name = Path(unquote(urlsplit(url).path)).name
    if urlsplit(url).scheme not in ("http", "https"):
        from fsspec.core import url_to_fs

        filesystem, at = url_to_fs(url)
        filesystem.get_file(at, str(folder / (name or "adapter")))
        return folder / (name or "adapter")
    request = urllib.request.Request(url, headers={"User-Agent": "raymap"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        given = answer.headers.get_filename()
        target = folder / (Path(given).name if given else name or "adapter")
        with target.open("wb") as file:
            shutil.copyfileobj(answer, file)
        return target
