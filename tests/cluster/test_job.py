"""`ray job submit` against a head that `ray start` started, as the README has it: run, stop, resume."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import HANG_S, raymap_command
from tests.head import RAY, Head, started

SECRET = "hf_of_nobody_0123456789"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head with token authentication on."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 32,
        "RAY_JOB_STOP_WAIT_TIME_S": str(HANG_S),
        "HF_TOKEN": SECRET,
    }
    with started(environment) as head:
        assert "RAY_API_SERVER_ADDRESS" in head.environment
        yield head


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
