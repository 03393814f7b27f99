"""A run whose folder is a bucket: a real S3-compatible server, the real command, and a failure in the middle."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
import urllib3
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from raymap.errors import InputError, StorageError
from raymap.store import lock
from raymap.store.files import create, local_copy, place, read_each, write_atomically
from raymap.store.lock import locked
from tests.commands import raymap_command


class Gate(ThreadingHTTPServer):
    """Passes requests on to a server; every put of a key that holds `broken` is refused."""

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.behind = behind
        self.broken: str | None = None
        self.puts: list[str] = []
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
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
        headers["Host"] = self.headers["Host"]  # what was signed
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
    assert (root / "new").read_bytes() == b"1"


def test_a_bucket_that_is_not_there_is_named(gate: Gate) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        write_atomically(place("s3://nowhere/file"), b"")


def test_of_two_drivers_on_a_bucket_the_second_is_refused(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.5)
    monkeypatch.setattr(lock, "PATIENCE_S", 2.0)
    root = place("s3://runs/held")
    with locked(root), pytest.raises(InputError, match="in use"), locked(root):
        pass
    assert not (root / ".lock").exists()
    write_atomically(root / ".lock", b"a dead driver's")
    started = time.monotonic()
    with locked(root):
        assert time.monotonic() - started > 2.0


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
        assert (root / path.relative_to(finished).as_posix()).read_bytes() == path.read_bytes(), path.name
    assert len((root / "ledger.jsonl").read_bytes().splitlines()) == 12
    assert len([path for path in gate.puts if "/ledger/" in path]) == 12  # nothing was committed twice
    assert json.loads((root / "run.json").read_text())["images"] == 2 * 7 * 3
    assert b"<html" in (root / "report" / "index.html").read_bytes()
