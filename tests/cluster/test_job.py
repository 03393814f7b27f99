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

from tests.commands import HANG_S, finish, raymap_command

SECRET = "hf_of_nobody_0123456789"
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A head node: what a job client needs in its environment, the address that a driver joins, Ray's own folder."""

    environment: dict[str, str]
    address: str
    folder: Path

    def job(self, *args: str | Path) -> str:
        """Run `ray job …` with the token, and return what it printed."""
        return finish([RAY, "job", *(str(arg) for arg in args)], env=self.environment).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head of two CPUs with token authentication on; it and all that it started end with the module."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets in it have names of at most 107 characters
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 32,
        "RAY_JOB_STOP_WAIT_TIME_S": str(HANG_S),
        "HF_TOKEN": SECRET,
    }
    # Ray finds every port free itself, when it binds it, but for that of its client server, which may not be 0.
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--port=0", "--dashboard-agent-listen-port=0",
               f"--ray-client-server-port={_free_port()}", f"--temp-dir={folder}", "--object-store-memory=200000000",
               "--disable-usage-stats", "--log-color=false"]  # fmt: skip
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
        dashboard = re.search(r"RAY_API_SERVER_ADDRESS='([^']+)'", said)
        assert address is not None, said
        assert dashboard is not None, said
        yield Head(environment | {"RAY_API_SERVER_ADDRESS": dashboard[1]}, address[1], Path(folder))
    finally:
        process.terminate()
        process.wait(timeout=HANG_S)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_lines(path: Path, lines: int) -> None:
    deadline = time.monotonic() + HANG_S
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
    head.job(*submit, "--no-wait", "--submission-id", "first", *run)
    wait_for_lines(output / "ledger.jsonl", 1)
    assert "was stopped" in head.job("stop", "first")
    log = head.job("logs", "first")
    assert "training 2 adapters: 20 steps" in log
    assert "drawing: 42 images" in log
    assert "raymap: stopped; the same command resumes" in log
    assert "Traceback" not in log
    committed = (output / "ledger.jsonl").read_bytes()
    assert 1 <= committed.count(b"\n") < 12

    second = head.job(*submit, *run)
    assert "training" not in second
    assert "images are there already" in second
    assert "identity control: exactly zero" in second
    assert "\x1b" not in second[second.index("Running entrypoint") : second.index("report: ")]
    ledger = (output / "ledger.jsonl").read_bytes()
    assert ledger.startswith(committed)
    assert ledger.count(b"\n") == 12
    for path in [*(finished / "scores").iterdir(), finished / "noise.arrow", finished / "map.arrow"]:
        assert (output / path.relative_to(finished)).read_bytes() == path.read_bytes(), path.name
    assert (output / "report" / "index.html").is_file()

    assert SECRET not in log + second + head.job("list")
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
    rest, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 3, rest
    assert rest.strip().splitlines()[-1] == "raymap: stopped; the same command resumes"
