"""The checkout stays small enough to be carried, with some wheels, to a GPU machine that has no network."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 48 * 2**20


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_all_files_of_a_checkout_take_less_than_48_mib() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file()) < LIMIT
