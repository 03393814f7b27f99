"""Files on a local disk or at any fsspec URL (s3://, gs://, …): each is there as a whole, or not at all.

A remote path is a `upath.UPath`, which has pathlib's interface; it is annotated as a `Path`. Another process may
replace a remote object at any time, so its content is read by `read_file`, `read_if_there` or `read_each`, and never by
the path's own `read_bytes` or `open`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from upath import UPath

from raymap.errors import InputError, StorageError

AT_ONCE = 256
"""How many remote files are requested together."""
PAUSES_S = (0.2, 0.4, 0.8)
"""A remote file that cannot be read is requested again after these pauses."""
_SERIAL = {"max_concurrency": 1}
OPENED_WITH = {"s3": _SERIAL, "s3a": _SERIAL, "az": _SERIAL, "abfs": _SERIAL, "abfss": _SERIAL}
READ_WITH = {"gs": {"concurrency": 1}, "gcs": {"concurrency": 1}}
"""What makes the file system of a protocol, or its `cat_file`, read an object in one request. By default a large object
is read in several ranges. If it is replaced meanwhile, the result mixes both versions, without an error."""


def as_json(value: Any) -> bytes:
    """Return a value as indented JSON in UTF-8, with a final newline."""
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n").encode()


def place(url: str) -> Path:
    """Return the path of a local file or folder, or of a URL.

    Raises:
        InputError: the URL's protocol is unknown, or its package is not installed.
    """
    protocol, separator, _ = url.partition("://")
    options: dict[str, Any] = {"use_listings_cache": False, **OPENED_WITH.get(protocol, {})} if separator else {}
    try:
        return cast(Path, UPath(url, **options))
    except (ValueError, ImportError) as error:
        raise InputError(
            url, f"cannot be opened ({error})", "install the package of its protocol, such as s3fs or gcsfs"
        ) from error


def is_local(path: Path) -> bool:
    """Return whether a path is on a file system of this machine."""
    return getattr(path, "protocol", "") in ("", "file")


def _filesystem(path: Path) -> tuple[Any, str]:
    """Return a remote path's fsspec file system, and the path within it."""
    remote = cast(UPath, path)
    return remote.fs, remote.path


def _read_with(path: Path) -> dict[str, int]:
    return READ_WITH.get(cast(UPath, path).protocol, {})


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror or error}); {StorageError.REMEDY}") from error
    except Exception as error:
        if is_local(path):
            raise
        raise StorageError(f"{path} cannot be written ({error}); {StorageError.REMEDY}") from error


def write_atomically(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file so that it is there as a whole or not at all.

    A local file is written under a temporary name, synced and renamed, and its folder is synced (`durable=False` omits
    both syncs). A remote file is written by one put.

    Raises:
        StorageError: the file cannot be written; what was there before is unchanged.
    """
    with _writing(path):
        if not is_local(path):
            filesystem, at = _filesystem(path)
            filesystem.pipe_file(at, data)
            return
        with _new(path, durable) as file:
            file.write(data)


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a local file of any size so that the copy is there as a whole or not at all.

    Raises:
        StorageError: the target cannot be written.
    """
    with _writing(target):
        if not is_local(target):
            filesystem, at = _filesystem(target)
            filesystem.put_file(str(source), at)
            return
        with source.open("rb") as opened, _new(target, durable=True) as file:
            shutil.copyfileobj(opened, file)


@contextlib.contextmanager
def _new(path: Path, durable: bool) -> Iterator[BinaryIO]:
    """Yield a local file to write that takes its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def write_images(files: dict[Path, bytes], durable: bool) -> None:
    """Write image files: local ones one after the other, synced if `durable`; remote ones many at once.

    Raises:
        StorageError: one of them cannot be written.
    """
    paths = list(files)
    if not paths or is_local(paths[0]):
        for path, data in files.items():
            write_atomically(path, data, durable)
        return
    with _writing(paths[0].parent):
        filesystem, _ = _filesystem(paths[0])
        filesystem.pipe({_filesystem(path)[1]: data for path, data in files.items()})


def _sync(folder: Path) -> None:
    """Make a rename in a folder survive a power failure."""
    if os.name == "nt":
        return  # Windows opens no folder as a file, so a folder cannot be synced there; NTFS keeps a journal of renames
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a local file and sync it; if a killed writer left a torn line, that line is ended first.

    Raises:
        StorageError: the file cannot be written.
    """
    with _writing(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def create(path: Path, data: bytes) -> bool:
    """Write a remote file unless it exists; return whether it was written. Of several processes one succeeds.

    Raises:
        StorageError: the file cannot be written.
    """
    with _writing(path):
        filesystem, at = _filesystem(path)
        try:
            filesystem.pipe_file(at, data, mode="create")
        except FileExistsError:
            return False
        return True


def read_file(path: Path) -> bytes:
    """Return a file's content: one version of it, as a whole, even while another process replaces it.

    A remote object is read in a single request, and requested again if that fails. `path.read_bytes()` would first ask
    for its size and version, and fail if the object was replaced before the second request.

    Raises:
        FileNotFoundError: the file does not exist.
        StorageError: a remote file cannot be read.
    """
    if is_local(path):
        return path.read_bytes()
    filesystem, at = _filesystem(path)
    pauses = iter(PAUSES_S)
    while True:
        try:
            return cast(bytes, filesystem.cat_file(at, **_read_with(path)))
        except FileNotFoundError:
            raise
        except Exception as error:
            pause = next(pauses, None)
            if pause is None or isinstance(error, PermissionError):
                raise StorageError(f"{path} cannot be read ({error}); give the same command again") from error
        time.sleep(pause)


def read_if_there(path: Path) -> bytes | None:
    """Return a file's content as `read_file` does, or None if the file does not exist.

    Unlike `exists` followed by a read, this cannot fail because another process deletes the file between the two.

    Raises:
        StorageError: a remote file cannot be read.
    """
    try:
        return read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_each(paths: Sequence[Path]) -> Iterator[bytes | None]:
    """Yield the content of every file as `read_if_there` does; remote files are fetched many at once.

    Raises:
        StorageError: a remote file cannot be read.
    """
    if not paths or is_local(paths[0]):
        yield from (read_if_there(path) if path.is_file() else None for path in paths)
        return
    filesystem, _ = _filesystem(paths[0])
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        found = filesystem.cat([_filesystem(path)[1] for path in some], on_error="return", **_read_with(some[0]))
        for path in some:
            content = found[_filesystem(path)[1]]
            if isinstance(content, FileNotFoundError):
                yield None
            else:
                yield read_if_there(path) if isinstance(content, Exception) else content


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Return the files directly in a folder that end in `suffix`, sorted by name; none if there is no folder."""
    return sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder and in those below it, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


@contextlib.contextmanager
def local_copy(folder: Path, below: bool = False) -> Iterator[Path]:
    """Yield a local folder itself; of a remote one a local copy of the files in it, deleted afterwards.

    Args:
        below: files in folders below it are copied too.
    """
    with local_space(folder) as copy:
        files = [] if is_local(folder) else files_below(folder) if below else files_in(folder, "")
        for path, content in zip(files, read_each(files), strict=True):
            if content is not None:
                target = copy / path.as_posix().removeprefix(folder.as_posix()).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        yield copy


@contextlib.contextmanager
def local_space(folder: Path) -> Iterator[Path]:
    """Yield a folder to write into: a local folder itself, otherwise a temporary one, deleted afterwards."""
    if is_local(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="raymap-") as temporary:
        yield Path(temporary)


def move_folder(source: Path, target: Path, last: str) -> None:
    """Move a local folder: to a local target by one rename, to a remote one file by file, the file `last` at the end.

    Raises:
        StorageError: the target cannot be written.
    """
    with _writing(target):
        if is_local(target):
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            return
    for path in sorted(source.iterdir(), key=lambda path: path.name == last):
        write_atomically(target / path.name, path.read_bytes())
    shutil.rmtree(source)


def remove_folder(folder: Path) -> None:
    """Delete a folder and everything in it, if it exists."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        filesystem, at = _filesystem(folder)
        filesystem.rm(at, recursive=True)
