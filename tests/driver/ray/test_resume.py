"""A run that was finished, killed, interrupted or begun by other software, and is given again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from tests.commands import HANG_S, finish, raymap_command
from tests.driver.ray.run_files import arrow_files
from tests.workers import plain

Call = Callable[..., tuple[int, str]]


def test_a_finished_run_draws_nothing_again(finished: Path, study: Path, tmp_path: Path, call: Call) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    assert call("run", study, "--output", output)[0] == 0
    assert arrow_files(output) == arrow_files(finished)
    assert (output / "ledger.jsonl").read_bytes() == (finished / "ledger.jsonl").read_bytes()


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(finished: Path, study: Path, tmp_path: Path) -> None:
    """SIGKILL to the driver halfway: what was committed is not drawn again, and no byte differs from a whole run."""
    output = tmp_path / "second"
    shutil.copytree(finished / "adapters", output / "adapters")
    command = raymap_command("run", study, "--output", output)
    driver = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ledger = output / "ledger.jsonl"
    deadline = time.monotonic() + HANG_S
    while not (ledger.exists() and ledger.read_bytes().count(b"\n") >= 4):
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    left = driver.children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert psutil.wait_procs(left, timeout=HANG_S)[1] == [], "what the dead driver left behind ends by itself"
    committed = ledger.read_bytes().count(b"\n")
    assert committed < 12
    finish(command)
    units = [(entry["block"], entry["adapter"]) for entry in map(json.loads, ledger.read_bytes().splitlines())]
    assert len(units) == len(set(units)) == 12
    session = json.loads((output / "run.json").read_text())["sessions"][-1]
    assert session["drawn"] == 2 * 7 * 3 - sum(4 if block < 3 else 2 for block, _ in units[:committed])
    assert arrow_files(output / "scores") == arrow_files(finished / "scores")
    assert (output / "noise.arrow").read_bytes() == (finished / "noise.arrow").read_bytes()
    assert (output / "map.arrow").read_bytes() == (finished / "map.arrow").read_bytes()


def test_a_run_is_not_drawn_on_by_another_version_of_torch(
    finished: Path, study: Path, tmp_path: Path, call: Call
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    record = json.loads((output / "run.json").read_text())
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    record["versions"]["torch"] = "2.0.0"
    (output / "run.json").write_text(json.dumps(record))
    assert call("run", study, "--output", output)[0] == 0  # nothing is missing: only statistics are made
    ledger = output / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    before = arrow_files(output)
    code, error = call("run", study, "--output", output)
    said = " ".join(error.split())
    assert (code, "was drawn with torch 2.0.0, here is" in said) == (2, True), said
    assert arrow_files(output) == before


def test_an_interrupted_run_says_so_and_ends_with_130(study: Path, tmp_path: Path) -> None:
    process = psutil.Popen(
        raymap_command("run", study, "--output", tmp_path / "run"),
        env=plain(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while "training" not in process.stdout.readline():
        assert process.poll() is None
    while not has_actor(process, "Trainer"):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, rest
    assert "the same command resumes" in rest


def has_actor(driver: psutil.Process, name: str) -> bool:
    """Say whether a driver's Ray runtime holds an actor of a class."""
    for child in driver.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if "".join(child.cmdline()).startswith(f"ray::{name}"):
                return True
    return False
