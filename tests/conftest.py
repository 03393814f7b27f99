"""Shared fixtures: a small but real study, run once through the real command and a real Ray runtime."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes run side by side

from raymap.embedded.world.subjects import STAR_CUP

pytest_plugins = ("tests.browser",)

PROMPTS = {
    "people": ["a man with black hair in a blue shirt"],
    "animals": ["a brown bear on snow"],
    "objects": ["a red car on a street", "a blue teapot on a table"],
    "scenes": ["a city at night"],
    "styles": ["a pencil sketch of a gray dog"],
    "abstract": ["red and blue stripes"],
}


def small_study(folder: Path, **changes: Any) -> Path:
    """Write a study of one drawn subject, seven prompts, two seeds, short samplings, one worker; return its path."""
    references = [str(path) for path in STAR_CUP.write_references(folder / "references", n=3)]
    raw: dict[str, Any] = {
        "name": "small",
        "seeds": 2,
        "sampler": {"steps": 3, "guidance_scale": 3.0},
        "prompts": PROMPTS,
        "batch_size": 4,
        "images": "all",
        "subjects": [{"name": "star-cup", "category": "object", "class_word": "cup", "references": references}],
        "methods": {"lora": {"steps": 20, "batch_size": 2, "learning_rate": 1e-3}},
        "resources": {"workers": 1},
    }
    raw.update(changes)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not None}))
    return path


def raymap_command(*args: str | Path) -> list[str]:
    """Return the command line of the installed program."""
    return [str(Path(sys.executable).with_name("raymap")), *(str(a) for a in args)]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test session see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@pytest.fixture(scope="session")
def study(shared: Path) -> Path:
    """The small study's file."""
    with alone(shared / "study.lock"):
        path = shared / "study" / "study.yaml"
        return path if path.exists() else small_study(path.parent)


@pytest.fixture(scope="session")
def finished(study: Path, shared: Path) -> Path:
    """The small study's run folder, after the real command ended well; whichever process needs it first runs it."""
    output = shared / "finished"
    with alone(shared / "finished.lock"):
        if not (output / "report" / "index.html").exists():
            command = raymap_command("run", study, "--output", output)
            done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    return output


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock between this session's processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command line in this process and return its exit code and what it printed on stderr."""
    from raymap.cli import main

    def run(*args: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["raymap", *(str(a) for a in args)])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run
