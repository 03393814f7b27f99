"""A run whose folder is a bucket: a real S3-compatible server, the real command, and a failure in the middle."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
import urllib3
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from raymap.errors import InputError, StorageError
from raymap.store import lock
from raymap.store.files import create, local_copy, place, read_each, read_file, read_if_there, write_atomically
from raymap.store.lock import locked
from tests.commands import raymap_command


class Gate(ThreadingHTTPServer):
    """Passes requests on to a server; every put of a key that contains `broken` is refused.

    Puts are passed on one after the other, because moto checks in one step whether an object exists, and creates it in
    another. `gets` are the paths that were read, `partial` those of which a range or a certain version was asked for.
    """

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.behind = behind
        self.broken: str | None = None
        self.puts: list[str] = []
        self.gets: list[str] = []
        self.partial: list[str] = []
        self.putting = threading.Lock()
        self.pool = urllib3.PoolManager(timeout=30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Pass(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "PUT":
            if self.server.broken and self.server.broken in self.path:
                self.send_response(403)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.server.puts.append(self.path)
        if self.command in ("GET", "HEAD"):
            self.server.gets.append(self.path)
            if {"range", "if-match"} & {name.lower() for name in self.headers}:
                self.server.partial.append(self.path)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
        headers["Host"] = self.headers["Host"]  # what was signed
        with self.server.putting if self.command == "PUT" else contextlib.nullcontext():
            answer = self.server.pool.request(
                self.command, self.server.behind + self.path, body=body, headers=headers, decode_content=False
            )
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = answer.headers["content-length"] if self.command == "HEAD" else str(len(answer.data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A server with the bucket `runs`, reached through a gate; credentials come from the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    passing = Gate(f"http://{host}:{port}")
    threading.Thread(target=passing.serve_forever, daemon=True).start()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", passing.url),
    ):
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="runs")
    S3FileSystem.clear_instance_cache()  # another test's would ask that test's server
    yield passing
    passing.shutdown()
    passing.server_close()
    server.stop()


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


def test_a_run_on_a_bucket_gives_the_same_scores_and_survives_a_refused_put(
    gate: Gate, finished: Path, study: Path, tmp_path: Path
) -> None:
    """The same study, output a bucket; puts under scores/ fail from the second block on: exit code 3, then resumed."""
    gate.broken = "scores/00001-"
    command = raymap_command("run", study, "--output", "s3://runs/one")
    broken = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert broken.returncode == 3, broken.stdout + broken.stderr
    assert "cannot be written" in broken.stderr
    gate.broken = None
    committed = [path for path in gate.puts if "/ledger/" in path]
    assert 0 < len(committed) < 12
    whole = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    root = place("s3://runs/one")
    for path in [*(finished / "scores").iterdir(), finished / "noise.arrow", finished / "map.arrow"]:
        assert read_file(root / path.relative_to(finished).as_posix()) == path.read_bytes(), path.name
    assert len(read_file(root / "ledger.jsonl").splitlines()) == 12
    assert len([path for path in gate.puts if "/ledger/" in path]) == 12  # nothing was committed twice
    assert json.loads(read_file(root / "run.json"))["images"] == 2 * 7 * 3
    assert b"<html" in read_file(root / "report" / "index.html")
    assert not gate.partial  # each object was read in one request, which no other process can disturb
