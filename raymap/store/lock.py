"""One driver a run folder: a lock that goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from raymap.errors import InputError, StorageError
from raymap.store.files import create, is_local, write_atomically

BEAT_S = 5.0
PATIENCE_S = 4 * BEAT_S
"""A remote lock that does not change for so long is a dead driver's. No clocks are compared."""


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a run folder for one driver: locally by the kernel's file lock, elsewhere by an object that changes.

    Raises:
        InputError: when another raymap works in this folder.
        StorageError: when the folder cannot be written.
    """
    with _file_lock(root) if is_local(root) else _object_lock(root / ".lock"):
        yield


def check_seen(root: Path) -> None:
    """Check, where a worker runs, that it sees the run folder which its driver holds.

    Raises:
        InputError: when it doesn't.
    """
    if not (root / ".lock").exists():
        problem = f"is not to be seen from node {socket.gethostname()}"
        raise InputError(str(root), problem, "give an --output that every node reaches, as s3://… or a shared mount")


def _in_use(root: Path) -> InputError:
    return InputError(str(root), "is in use by another raymap", "wait for it or give another --output")


@contextlib.contextmanager
def _file_lock(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / ".lock").open("w")
    except OSError as error:
        raise StorageError(f"{root} cannot be written ({error.strerror}); {StorageError.REMEDY}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _in_use(root) from error
        yield


@contextlib.contextmanager
def _object_lock(path: Path) -> Iterator[None]:
    token = uuid.uuid4().hex
    if not create(path, token.encode()):
        _wait_for_the_dead(path)
        write_atomically(path, token.encode())
        time.sleep(BEAT_S / 5)  # of two that waited, the later writer has it
        if path.read_bytes() != token.encode():
            raise _in_use(path.parent)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, token, over), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with contextlib.suppress(Exception):  # what stays is taken for a dead driver's
            if path.read_bytes().startswith(token.encode()):
                path.unlink()


def _wait_for_the_dead(path: Path) -> None:
    """Return once the lock has not changed for a while, or is gone."""
    try:
        before = path.read_bytes()
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            time.sleep(BEAT_S / 5)
            if path.read_bytes() != before:
                raise _in_use(path.parent)
    except FileNotFoundError:
        return


def _beat(path: Path, token: str, over: threading.Event) -> None:
    for count in itertools.count():
        if over.wait(BEAT_S):
            return
        with contextlib.suppress(StorageError):  # the next beat, or the next commit, will tell
            write_atomically(path, f"{token} {count}".encode())
