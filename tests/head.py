"""A head node that `ray start` starts, as a user would."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.commands import HANG_S, finish

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A head node: what a job client needs in its environment, the address that a driver joins, Ray's own folder."""

    environment: dict[str, str]
    address: str
    folder: Path

    def job(self, *args: str | Path) -> str:
        """Run `ray job …`, and return what it printed."""
        return finish([RAY, "job", *(str(arg) for arg in args)], env=self.environment).stdout


@contextlib.contextmanager
def started(environment: dict[str, str], *options: str) -> Iterator[Head]:
    """Hold a head of two CPUs; it and all that it started end with it."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets in it have names of at most 107 characters
    # Ray finds every port free itself, when it binds it, but for that of its client server, which may not be 0.
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--port=0", "--dashboard-agent-listen-port=0",
               f"--ray-client-server-port={_free_port()}", f"--temp-dir={folder}", "--object-store-memory=200000000",
               "--disable-usage-stats", "--log-color=false", *options]  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "block forever" in line:
                break
        address = re.search(r"--address='([^']+)'", said)
        assert address is not None, said
        dashboard = re.search(r"RAY_API_SERVER_ADDRESS='([^']+)'", said)
        api = {"RAY_API_SERVER_ADDRESS": dashboard[1]} if dashboard else {}
        yield Head(environment | api, address[1], Path(folder))
    finally:
        process.terminate()
        process.wait(timeout=HANG_S)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
