"""Markers by folder, and what most tests share: a small study, and its run folder as the real command leaves it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes run side by side
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))  # one for all processes of a session

from tests import workers
from tests.commands import Ended, raymap_command
from tests.head import started
from tests.once import made_once
from tests.small_study import small_study

pytest_plugins = ("tests.browser", "tests.bucket")

TESTS = Path(__file__).parent
MARKERS = ("slow", "ray", "browser")
"""A folder with one of these names gives its name to all tests in it as their marker."""
FOLDERS = {"benchmarks": ("slow", "ray"), "cluster": ("ray",)}
"""Other folders that give markers to their tests."""


def pytest_configure(config: pytest.Config) -> None:
    """Start the process whose forks are Ray's workers in all processes of this session."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        folder = Path(tempfile.mkdtemp(prefix="raymap-"))
        parent = workers.started(folder / "socket")

        def end() -> None:
            parent.communicate()  # it ends with its stdin
            shutil.rmtree(folder)

        config.add_cleanup(end)


def markers_of(path: Path) -> set[str]:
    """Return the markers that the folders of a path give to its tests."""
    folders = path.relative_to(TESTS).parts
    return {marker for folder in folders for marker in FOLDERS.get(folder, (folder,) if folder in MARKERS else ())}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over a folder whose tests `-m "not … and not …"` leaves out: to import them takes seconds."""
    asked = config.getoption("markexpr")
    left_out = set() if " or " in asked else set(asked.split(" and "))
    inside = collection_path.is_dir() and collection_path.is_relative_to(TESTS)
    return True if inside and any(f"not {marker}" in left_out for marker in markers_of(collection_path)) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folders, and let those begin first that take longest."""
    for item in items:
        for marker in markers_of(item.path.parent):
            item.add_marker(marker)
    items.sort(key=lambda item: next((k for k, name in enumerate(MARKERS) if item.get_closest_marker(name)), 9))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test session see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@pytest.fixture(scope="session")
def study(shared: Path) -> Path:
    """The small study's file."""

    def make(folder: Path) -> None:
        folder.mkdir()
        small_study(folder)

    return made_once(shared / "study", make) / "study.yaml"


@pytest.fixture(scope="session")
def finished(study: Path, shared: Path) -> Path:
    """The small study's run folder, after the real command ended well.

    Beside it lies `finished.loaded`: the files that the driver had in its memory after the first batch was drawn.
    """

    def make(folder: Path) -> None:
        log, loaded = folder.with_name("finished.log"), folder.with_name("finished.loaded")
        with log.open("w") as file:
            driver = subprocess.Popen(raymap_command("run", study, "--output", folder), stdout=file, stderr=file)
        while driver.poll() is None:
            if (folder / "ledger.jsonl").exists() and not loaded.exists():
                loaded.write_text(Path(f"/proc/{driver.pid}/maps").read_text())
            time.sleep(0.1)
        assert driver.returncode == 0, log.read_text()

    return made_once(shared / "finished", make)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a head that drivers of this process join, where no test is about how Ray starts."""
    with started(dict(os.environ), "--include-dashboard=false") as head:
        yield head.address


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command line in this process, where no test is about the process itself."""
    from raymap.cli import main

    def run(*args: str | Path) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["raymap", *(str(arg) for arg in args)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def call(command: Callable[..., Ended]) -> Callable[..., tuple[int, str]]:
    """Run the command line in this process and return its exit code and what it printed on stderr."""

    def run(*args: str | Path) -> tuple[int, str]:
        ended = command(*args)
        return ended.code, ended.err

    return run
