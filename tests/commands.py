"""The command line as tests give it: in a process of its own, or within this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

HANG_S = 900
"""After so many seconds a process is taken to hang. It is no measure of speed: machines may be slow and busy."""


@dataclass(frozen=True)
class Ended:
    """How a command ended within this process: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


def run_here(*args: str | Path, address: str, code: int = 0) -> Ended:
    """Run the command line in this process, as a driver that joins a cluster; it must end with an exit code."""
    from raymap.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["raymap", *(str(arg) for arg in args)]),
        mock.patch.dict(os.environ, RAY_ADDRESS=address),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert (ended.value.code or 0) == code, out.getvalue() + err.getvalue()
    return Ended(code, out.getvalue(), err.getvalue())


def raymap_command(*args: str | Path) -> list[str]:
    """Return the command line of the installed program."""
    return [str(Path(sys.executable).with_name("raymap")), *(str(arg) for arg in args)]


def python(code: str, *args: str | Path, **options: Any) -> str:
    """Run Python code in a process of its own, which must end well; return what it printed."""
    return finish([sys.executable, "-c", code, *(str(arg) for arg in args)], **options).stdout


def finish(command: list[str], code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, which must come with an exit code; return what it wrote, as text."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done
