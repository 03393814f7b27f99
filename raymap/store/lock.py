"""One driver per run folder: a lock that ends with its process, however the process ends."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from raymap.errors import InputError, StorageError
from raymap.store.files import create, is_local, read_if_there, write_atomically

BEAT_S = 5.0
"""A driver renews its lock on a remote folder this often."""
LOOK_S = 1.0
LOOKS = 20
"""A remote lock that is the same at this many looks, LOOK_S apart, belongs to a dead driver. No clocks are compared.
Looks are counted, not seconds, because on a busy machine the driver that waits is as slow as the one that holds it."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system without file locks answers."""


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Reserve a run folder for one driver: a local one by the system's file lock, a remote one by an object.

    Raises:
        InputError: another raymap is working in this folder, or its file system has no file locks.
        StorageError: the folder cannot be written; or, at the end, another driver has taken the folder over.
    """
    with _file_lock(root) if is_local(root) else _object_lock(root):
        yield


def check_seen(root: Path) -> None:
    """Check, on a worker's node, that the run folder which the driver has locked can be seen there.

    Raises:
        InputError: it cannot be seen.
    """
    if not (root / ".lock").exists():
        problem = f"cannot be seen from node {socket.gethostname()}"
        remedy = "give an --output that every node reaches, such as s3://… or a shared mount"
        raise InputError(str(root), problem, remedy)


def _in_use(root: Path) -> InputError:
    return InputError(str(root), "is in use by another raymap", "wait for it or give another --output")


@contextlib.contextmanager
def _file_lock(root: Path) -> Iterator[None]:
    # A file system without file locks is refused: filelock's substitute, a lock file that is deleted at the end, would
    # stay behind when a driver is killed. The file of a real lock always stays, and means nothing by itself.
    lock = FileLock(root / ".lock", timeout=0, preserve_lock_file=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise _in_use(root) from error
    except OSError as error:
        if error.errno in NO_LOCKS:
            problem = f"is on a file system without file locks ({error.strerror})"
            raise InputError(str(root), problem, "give an --output on another file system, or a URL") from error
        raise StorageError(f"{root} cannot be written ({error.strerror}); {StorageError.REMEDY}") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _object_lock(root: Path) -> Iterator[None]:
    lock = _ObjectLock(root)
    lock.acquire()
    over = threading.Event()
    beating = threading.Thread(target=lock.renew, args=(over,), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        lock.release()
    if lock.lost:
        problem = "was taken over by another raymap, because this one was unable to renew its lock for too long"
        raise StorageError(f"{root} {problem}; wait for the other one, then give the same command again")


@dataclass
class _ObjectLock:
    """A lock made of objects in a store with two safe operations: to replace an object, and to create one only once.

    `.lock` contains the token of the driver that took the lock, and a number that changes while the driver lives. A
    waiting driver that sees no change takes over by creating `.lock.TOKEN`, named after the dead driver's token, with
    its own token as content: of several drivers that try, one succeeds. The lock thus belongs to the last token of a
    chain that begins in `.lock`, even if a driver that was only slow writes `.lock` once more; that driver then finds
    another's token at the end of the chain. What a crash leaves behind only lengthens the chain.
    """

    root: Path
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    lost: bool = False
    _taken_over: tuple[str, ...] = field(default=(), init=False)

    @property
    def _path(self) -> Path:
        return self.root / ".lock"

    def _heir(self, token: str) -> Path:
        return self.root / f".lock.{token}"

    def _chain(self, content: bytes | None) -> tuple[str, ...]:
        """Return the chain of tokens, from the one in `.lock` (whose content is given) to the lock's present owner."""
        if content is None:
            return ()
        tokens = [content.decode(errors="replace").partition(" ")[0]]
        while (heir := read_if_there(self._heir(tokens[-1]))) is not None and heir.decode() not in tokens:
            tokens.append(heir.decode())
        return tuple(tokens)

    def _held(self) -> bool:
        return self._chain(read_if_there(self._path))[-1:] == (self.token,)

    def acquire(self) -> None:
        """Take the lock, if the folder is free or the driver that holds it is dead.

        Raises:
            InputError: another driver holds it.
            StorageError: the store cannot be read or written.
        """
        if create(self._path, self.token.encode()):
            return
        self._taken_over = self._dead()
        create(self._heir(self._taken_over[-1]) if self._taken_over else self._path, self.token.encode())
        if not self._held():
            raise _in_use(self.root)
        write_atomically(self._path, self.token.encode())

    def _dead(self) -> tuple[str, ...]:
        """Wait until `.lock` has stayed the same for long enough, and return the chain from before; empty if it goes.

        A driver that joined the chain meanwhile is alive. The returned chain does not include it, so the caller cannot
        take over from it.

        Raises:
            InputError: `.lock` changes, so its driver is alive.
        """
        before = read_if_there(self._path)
        chain = self._chain(before)
        for _ in range(LOOKS if chain else 0):
            time.sleep(LOOK_S)
            now = read_if_there(self._path)
            if now is None:
                return ()
            if now != before:
                raise _in_use(self.root)
        return chain

    def renew(self, over: threading.Event) -> None:
        """Keep changing the lock until `over` is set or another driver has taken it, whose lock is then left alone."""
        for count in itertools.count(1):
            if over.wait(BEAT_S):
                return
            with contextlib.suppress(StorageError):  # the next attempt, or the next commit, will tell
                if not self._held():
                    self.lost = True
                    return
                write_atomically(self._path, f"{self.token} {count}".encode())

    def release(self) -> None:
        """Free the folder, unless it belongs to another driver by now."""
        with contextlib.suppress(Exception):  # an object that is left behind looks like a dead driver's
            self.lost = self.lost or not self._held()
            if not self.lost:
                self._path.unlink()
                for token in self._taken_over:
                    self._heir(token).unlink()
