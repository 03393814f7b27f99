"""Ray's worker processes as forks of one process, which has imported what each of them would import for seconds.

Tests that look for workers among their driver's children, or that are about a cluster, start them as Ray does:
they leave RAY_RUNTIME_ENV_HOOK out of the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HOOK = "RAY_RUNTIME_ENV_HOOK"
"""The variable in which Ray finds the function that completes a driver's runtime environment."""
SOCKET = "RAYMAP_TESTS_WORKERS"
"""The variable that holds the path at which the process that forks itself listens."""


def started(path: Path) -> subprocess.Popen[bytes]:
    """Start the process that forks itself, and have drivers ask it for their workers; it ends with its stdin."""
    found = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ |= {HOOK: f"{__name__}.hook", SOCKET: str(path), "PYTHONPATH": found}
    return subprocess.Popen([sys.executable, "-m", "tests.workers.parent", str(path)], stdin=subprocess.PIPE)


def plain() -> dict[str, str]:
    """Return the environment of a driver whose workers are processes as Ray starts them for its users."""
    return {name: value for name, value in os.environ.items() if name != HOOK}


def hook(environment: dict[str, Any] | None) -> dict[str, Any]:
    """Complete a driver's runtime environment: its workers are started by tests/workers/ask.py."""
    ask = f"{sys.executable} -IS {Path(__file__).with_name('ask.py')} {os.environ[SOCKET]}"
    return {"py_executable": ask} | (environment or {})
