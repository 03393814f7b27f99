"""Checks that raymap can be installed beside other software without holding it back.

    python -m tools.check_install

Resolves packages that people have beside raymap, first alone and then together with raymap, for each supported version
of Python. It fails when one of them has no solution, is older together than alone, or is older than its floor: a
resolver that finds no current release falls back to one from before dependencies were declared. Only metadata is
fetched, nothing is installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BESIDE = {"httpx[cli]": "0.27", "jupyterlab": "4.4", "gradio": "5", "accelerate": "1"}
"""What people install beside raymap, without a version as they type it, and the oldest release to be had of each."""
PYTHONS = ("3.11", "3.12", "3.13")


def resolved(sources: list[Path], python: str) -> dict[str, Version]:
    """Return the version of each package that uv picks for requirements files and projects.

    Raises:
        subprocess.CalledProcessError: there is no solution; uv has said why on stderr.
    """
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    output = subprocess.run([*command, *map(str, sources)], check=True, stdout=subprocess.PIPE, text=True).stdout
    pins = [Requirement(line) for line in output.splitlines() if "==" in line]
    return {canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version) for pin in pins}


def complaints(alone: dict[str, Version], together: dict[str, Version]) -> list[str]:
    """Return a sentence for each package that raymap holds back."""
    found = []
    for wanted, floor in BESIDE.items():
        name = canonicalize_name(Requirement(wanted).name)
        if together[name] < alone[name]:
            found.append(f"{name} is {together[name]} beside raymap and {alone[name]} without it")
        if together[name] < Version(floor):
            found.append(f"{name} is {together[name]} beside raymap, and should be at least {floor}")
    return found


def main() -> int:
    """Check every Python; return 1 where raymap holds a package back or has no solution."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) / "beside.in"
        beside.write_text("".join(f"{wanted}\n" for wanted in BESIDE))
        for python in PYTHONS:
            try:
                alone, together = resolved([beside], python), resolved([PROJECT, beside], python)
            except subprocess.CalledProcessError as error:
                print(f"Python {python}: no solution (uv ended with {error.returncode})")
                failed = True
                continue
            found = complaints(alone, together)
            failed |= bool(found)
            versions = (f"{name} {together[canonicalize_name(Requirement(name).name)]}" for name in BESIDE)
            print(f"Python {python}: {'; '.join(found) or ', '.join(versions)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
