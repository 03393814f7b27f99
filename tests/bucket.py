"""A bucket on a real S3-compatible server, whose requests a test can refuse and count."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import urllib3

from tests.commands import HANG_S


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
        self.pool = urllib3.PoolManager(timeout=HANG_S)

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
    import boto3  # loaded here, because few tests need a bucket
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

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
