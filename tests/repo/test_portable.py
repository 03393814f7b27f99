"""The package imports where Python lacks the modules that only POSIX systems have, as on Windows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import raymap

BLOCKED = """
import builtins, importlib, pkgutil, sys

OPTIONAL = {"pandas"}  # Ray Data, which one benchmark uses, needs it
POSIX_ONLY = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
imported = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if name.partition(".")[0] in POSIX_ONLY and importer.partition(".")[0] == "raymap":
        raise ModuleNotFoundError(f"No module named {name!r}, which {importer} imports", name=name)
    return imported(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
"""
IMPORTS_ALL = """
import raymap

lacking = 0
for module in pkgutil.walk_packages(raymap.__path__, "raymap."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            lacking += 1
print(lacking + sum(name.partition(".")[0] == "raymap" for name in sys.modules))
"""
IMPORTS_FCNTL = """
exec("import fcntl", {"__name__": "another"})
exec("from fcntl import flock", {"__name__": "raymap.store.lock"})
"""


@pytest.mark.slow  # loads all libraries
def test_every_module_imports_without_what_only_posix_has() -> None:
    """Libraries may import such modules: they have guards of their own."""
    command = [sys.executable, "-W", "ignore", "-c", BLOCKED + IMPORTS_ALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = [path for path in Path(raymap.__file__).parent.rglob("*.py") if path.name != "__main__.py"]
    assert int(done.stdout.splitlines()[-1]) == len(modules)


def test_the_guard_of_these_tests_does_block() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED + IMPORTS_FCNTL], capture_output=True, text=True, check=False)
    assert "No module named 'fcntl', which raymap.store.lock imports" in done.stderr
