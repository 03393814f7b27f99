"""`ray job submit` against a head that `ray start` started, as the README has it: run, stop, go on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import raymap_command

SECRET = "hf_of_nobody_0123456789"
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A head node: what a job client needs in its environment, the address that a driver joins, Ray's own folder."""

    environment: dict[str, str]
    address: str
    folder: Path

    def job(self, *args: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `ray job …` with the token."""
        command = [RAY, "job", *(str(a) for a in args)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head of two CPUs with token authentication on; it and all that it started ends with the module."""
    dashboard, client = free_ports(2)
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets in it have names of at most 107 characters
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 32,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "HF_TOKEN": SECRET,
    }
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--port=0", f"--dashboard-port={dashboard}",
               f"--ray-client-server-port={client}", f"--temp-dir={folder}", "--object-store-memory=200000000",
               "--dashboard-agent-listen-port=0", "--disable-usage-stats", "--log-color=false"]  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        address = None
        for line in process.stdout:
            address = address or re.search(r"--address='([^']+)'", line)
            if "block forever" in line:
                break
        assert address is not None, "the head did not start"
        yield Head(environment, address[1], Path(folder))
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for_lines(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 200
    while not (path.exists() and path.read_bytes().count(b"\n") >= lines):
        assert time.monotonic() < deadline, f"{path.name} never had {lines} lines"
        time.sleep(0.05)


def test_a_client_without_the_token_is_refused(head: Head) -> None:
    without = {k: v for k, v in head.environment.items() if k != "RAY_AUTH_TOKEN"} | {"RAY_AUTH_MODE": "disabled"}
    refused = subprocess.run([RAY, "job", "list"], env=without, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "authentication" in refused.stderr.lower()


def test_a_job_that_is_stopped_goes_on_when_submitted_again(
    head: Head, study: Path, finished: Path, tmp_path: Path
) -> None:
    """Its log shows progress in plain lines, and its run folder holds a local run's bytes."""
    output = tmp_path / "run"
    submit = ("submit", "--working-dir", study.parent)
    run = ("--", "raymap", "run", study.name, "--output", output)
    assert head.job(*submit, "--no-wait", "--submission-id", "first", *run).returncode == 0
    wait_for_lines(output / "ledger.jsonl", 1)
    assert "was stopped" in head.job("stop", "first").stdout
    log = head.job("logs", "first").stdout
    assert "training 2 adapters: 20 steps" in log
    assert "drawing: 42 images" in log
    assert "raymap: stopped; the same command goes on" in log
    assert "Traceback" not in log
    committed = (output / "ledger.jsonl").read_bytes()
    assert 1 <= committed.count(b"\n") < 12

    second = head.job(*submit, *run)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "training" not in second.stdout
    assert "images are there already" in second.stdout
    assert "identity control: exactly zero" in second.stdout
    assert "\x1b" not in second.stdout[second.stdout.index("Running entrypoint") : second.stdout.index("report: ")]
    ledger = (output / "ledger.jsonl").read_bytes()
    assert ledger.startswith(committed)
    assert ledger.count(b"\n") == 12
    for path in [*(finished / "scores").iterdir(), finished / "noise.arrow", finished / "map.arrow"]:
        assert (output / path.relative_to(finished)).read_bytes() == path.read_bytes(), path.name
    assert (output / "report" / "index.html").is_file()

    assert SECRET not in log + second.stdout + head.job("list").stdout
    written = [p for place in (output, head.folder) for p in place.rglob("*") if p.is_file()]
    assert len(written) > 50
    assert not [p for p in written if SECRET.encode() in p.read_bytes()]


def test_sigterm_ends_a_driver_with_exit_code_3(head: Head, study: Path, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished / "adapters", output / "adapters")
    process = subprocess.Popen(
        raymap_command("run", study, "--output", output),
        env=head.environment | {"RAY_ADDRESS": head.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    while "drawing" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 3, rest
    assert rest.strip().splitlines()[-1] == "raymap: stopped; the same command goes on"
