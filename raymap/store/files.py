"""Files on a local disk or at any fsspec URL (s3://, gs://, …): each is there whole, or not at all.

A place that is not local is a `upath.UPath`, which has pathlib's interface; it is annotated as a `Path`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from upath import UPath

from raymap.errors import InputError, StorageError

AT_ONCE = 256
"""How many remote files are asked for in one go."""


def place(url: str) -> Path:
    """Return a local path or a URL's place.

    Raises:
        InputError: a URL of an unknown kind, or one whose package is not installed.
    """
    options: dict[str, Any] = {"use_listings_cache": False} if "://" in url else {}
    try:
        return cast(Path, UPath(url, **options))
    except (ValueError, ImportError) as error:
        raise InputError(url, f"cannot be opened ({error})", "install what its kind needs, as s3fs or gcsfs") from error


def is_local(path: Path) -> bool:
    """Return whether a path lies on a file system of this machine."""
    return getattr(path, "protocol", "") in ("", "file")


def _filesystem(path: Path) -> tuple[Any, str]:
    """Return a remote place's fsspec file system and its path there."""
    remote = cast(UPath, path)
    return remote.fs, remote.path


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
    """Write a file so that it is there whole or not at all.

    Locally: temporary name, fsync, rename, fsync of the folder (`durable=False` leaves both out); elsewhere one put.

    Raises:
        StorageError: it cannot be written; what was there before is unchanged.
    """
    with _writing(path):
        if not is_local(path):
            filesystem, at = _filesystem(path)
            filesystem.pipe_file(at, data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync(path.parent)


def write_pictures(files: dict[Path, bytes], durable: bool) -> None:
    """Write files: locally one after the other, with fsync where they are `durable`; elsewhere many at once.

    Raises:
        StorageError: one cannot be written.
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
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a local file, durably; a torn line that a killed writer left is closed first.

    Raises:
        StorageError: it cannot be written.
    """
    with _writing(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def create(path: Path, data: bytes) -> bool:
    """Put a remote file unless it is there; return whether it was put.

    Raises:
        StorageError: it cannot be written.
    """
    with _writing(path):
        filesystem, at = _filesystem(path)
        try:
            filesystem.pipe_file(at, data, mode="create")
        except FileExistsError:
            return False
        return True


def read_each(paths: Sequence[Path]) -> Iterator[bytes | None]:
    """Yield the content of every file, None where there is none; remote ones are fetched many at once."""
    if not paths or is_local(paths[0]):
        yield from (path.read_bytes() if path.is_file() else None for path in paths)
        return
    filesystem, _ = _filesystem(paths[0])
    for start in range(0, len(paths), AT_ONCE):
        names = [_filesystem(path)[1] for path in paths[start : start + AT_ONCE]]
        found = filesystem.cat(names, on_error="return")
        for name in names:
            content = found[name]
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise StorageError(f"{name} cannot be read ({content}); give the same command again")
            yield content if isinstance(content, bytes) else None


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Return a folder's own files that end in `suffix`, sorted by name; none where there is no folder."""
    return sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))


@contextlib.contextmanager
def local_copy(folder: Path) -> Iterator[Path]:
    """Yield a folder itself where it is local, else a copy of its own files, which is deleted afterwards."""
    with local_space(folder) as copy:
        files = [] if is_local(folder) else files_in(folder, "")
        for path, content in zip(files, read_each(files), strict=True):
            if content is not None:
                (copy / path.name).write_bytes(content)
        yield copy


@contextlib.contextmanager
def local_space(folder: Path) -> Iterator[Path]:
    """Yield a folder to write into: itself where it is local, else a temporary one, which is deleted afterwards."""
    if is_local(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="raymap-") as temporary:
        yield Path(temporary)


def move_folder(source: Path, target: Path, last: str) -> None:
    """Move a local folder's files to where they belong: by one rename, or, elsewhere, file by file, `last` last.

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
    """Delete a folder and all in it, if it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        filesystem, at = _filesystem(folder)
        filesystem.rm(at, recursive=True)
