"""Files and the lock of a run folder that is in a bucket, while other processes change it."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from s3fs import S3FileSystem

from raymap.errors import InputError, StorageError
from raymap.store import lock
from raymap.store.files import (
    copy_atomically,
    create,
    local_copy,
    place,
    read_each,
    read_file,
    read_if_there,
    write_atomically,
)
from raymap.store.lock import locked
from tests.bucket import Gate


def test_files_of_a_bucket_are_written_and_read(gate: Gate) -> None:
    root = place("s3://runs/some")
    write_atomically(root / "a" / "1.txt", b"one")
    write_atomically(root / "a" / "2.txt", b"two")
    assert list(read_each([root / "a" / "2.txt", root / "a" / "none", root / "a" / "1.txt"])) == [b"two", None, b"one"]
    with local_copy(root / "a") as copy:
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == {"1.txt": b"one", "2.txt": b"two"}
    assert create(root / "new", b"1")
    assert not create(root / "new", b"2")
    assert read_file(root / "new") == b"1"
    assert read_if_there(root / "none") is None
    with pytest.raises(FileNotFoundError):
        read_file(root / "none")


def test_a_bucket_that_is_not_there_is_named(gate: Gate) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        write_atomically(place("s3://nowhere/file"), b"")


def test_an_object_is_read_in_one_request_whatever_its_size(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3FileSystem, "default_block_size", 1000)  # beyond which s3fs would read in ranges
    path = place("s3://runs/large")
    write_atomically(path, b"x" * 5000)
    for read in (read_file, lambda path: next(read_each([path]))):
        gate.gets.clear()
        assert read(path) == b"x" * 5000
        assert gate.gets == ["/runs/large"]
    assert not gate.partial


@pytest.fixture
def run_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python processes, which end with the test."""
    started = []

    def start(code: str, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *args]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def keys(folder: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket="runs", Prefix=f"{folder}/").get("Contents", ())
    return [entry["Key"].removeprefix(f"{folder}/") for entry in found]


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


REPLACES = """
import itertools, sys
from raymap.store.files import place, write_atomically
root = place(sys.argv[1])
for k in itertools.count():
    write_atomically(root / "replaced", bytes([k % 251]) * (1000 + k % 251))
    write_atomically(root / "coming-and-going", b"whole")
    (root / "coming-and-going").unlink()
"""


def test_a_reader_never_trips_over_an_object_that_is_being_replaced(
    gate: Gate, run_python: Callable[..., subprocess.Popen[str]]
) -> None:
    root = place("s3://runs/shared")
    replaced, going = root / "replaced", root / "coming-and-going"
    write_atomically(replaced, b"\0" * 1000)
    writer = run_python(REPLACES, "s3://runs/shared")
    versions, there = set(), set()
    for count in itertools.count():
        absent, content = read_each([going, replaced])
        for whole in (read_file(replaced), content or b""):
            assert whole == whole[:1] * (1000 + whole[0])
            versions.add(whole[0])
        there |= {read_if_there(going), absent}
        assert writer.poll() is None
        if count >= 100 and len(versions) >= 20 and len(there) == 2:
            break
    assert there == {None, b"whole"}


HOLDS = """
import sys
from raymap.errors import InputError, StorageError
from raymap.store import lock
from raymap.store.files import place
lock.BEAT_S, lock.LOOK_S, lock.LOOKS = 0.2, 0.2, 20
root = place(sys.argv[1])
root.exists()  # connects
print("up", flush=True)
sys.stdin.readline()
try:
    with lock.locked(root):
        print("holds", flush=True)
        sys.stdin.readline()
    print("freed", flush=True)
except (InputError, StorageError) as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("before", [None, b"a-dead-driver 17"])
def test_of_drivers_that_start_at_once_exactly_one_holds(
    gate: Gate, run_python: Callable[..., subprocess.Popen[str]], before: bytes | None
) -> None:
    root = place("s3://runs/wanted")
    if before:
        write_atomically(root / ".lock", before)
    drivers = [run_python(HOLDS, "s3://runs/wanted") for _ in range(3)]
    assert [line_of(driver) for driver in drivers] == ["up"] * 3
    for driver in drivers:
        tell(driver)
    said = [line_of(driver) for driver in drivers]
    assert sorted("in use by another raymap" in line for line in said) == [False, True, True], said
    holder = drivers[said.index("holds")]
    tell(holder)
    assert line_of(holder) == "freed"
    assert not keys("wanted")


def test_of_two_drivers_on_a_bucket_the_second_is_refused(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    monkeypatch.setattr(lock, "LOOK_S", 0.1)
    monkeypatch.setattr(lock, "LOOKS", 1_000_000)  # it is refused because the lock changes, however long that takes
    root = place("s3://runs/held")
    with locked(root), pytest.raises(InputError, match="in use"), locked(root):
        pass
    assert not (root / ".lock").exists()


def test_a_dead_drivers_lock_is_taken_over(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOOK_S", 0.1)
    monkeypatch.setattr(lock, "LOOKS", 5)
    root = place("s3://runs/left")
    write_atomically(root / ".lock", b"dead 17")
    write_atomically(root / ".lock.dead", b"died-too")  # it took over from the first one, and died before it wrote more
    started = time.monotonic()
    with locked(root):
        assert time.monotonic() - started >= 0.5
        assert keys("left") == [".lock", ".lock.dead", ".lock.died-too"]
        write_atomically(root / ".lock", b"dead 18")  # what a driver may do that was only slow
    assert not keys("left")


def test_a_driver_that_took_over_while_another_one_waited_keeps_the_lock(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place("s3://runs/taken")

    def sleep(seconds: float) -> None:
        create(root / ".lock.dead", b"alive")

    write_atomically(root / ".lock", b"dead 17")
    monkeypatch.setattr(lock, "LOOKS", 5)
    monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(InputError, match="in use"), locked(root):
        pass
    assert keys("taken") == [".lock", ".lock.dead"]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")
def test_a_driver_that_was_stopped_for_long_notices_that_another_took_over(
    gate: Gate, run_python: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOOK_S", 0.1)
    monkeypatch.setattr(lock, "LOOKS", 5)
    first = run_python(HOLDS, "s3://runs/two")
    assert line_of(first) == "up"
    tell(first)
    assert line_of(first) == "holds"
    first.send_signal(signal.SIGSTOP)
    root = place("s3://runs/two")
    with locked(root):
        first.send_signal(signal.SIGCONT)
        tell(first)
        assert "was taken over by another raymap" in line_of(first)
    assert not keys("two")


def test_a_driver_leaves_a_lock_alone_that_is_not_its_own_any_more(gate: Gate) -> None:
    root = place("s3://runs/other")
    with pytest.raises(StorageError, match="was taken over by another raymap"), locked(root):
        write_atomically(root / ".lock", b"another 1")
    assert read_file(root / ".lock") == b"another 1"


def test_a_copy_may_have_the_files_below_too(gate: Gate, tmp_path: Path) -> None:
    root = place("s3://runs/nested")
    (tmp_path / "large").write_bytes(b"one" * 1000)
    copy_atomically(tmp_path / "large", root / "a" / "b" / "1.txt")
    write_atomically(root / "a" / "2.txt", b"two")
    with local_copy(root / "a", below=True) as copy:
        found = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert found == {"b/1.txt": b"one" * 1000, "2.txt": b"two"}
