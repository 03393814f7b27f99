"""The measurement for GPUs runs whole in tiny sizes, on a machine that has neither Ray nor polars, and continues."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ABSENT = ("ray", "polars", "typer", "playwright", "boto3", "s3fs", "mkdocs")
HIDE = f"""
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
def visible(name, path=None, target=None):
    return None if name.partition(".")[0] in {ABSENT} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = visible
"""
"""What a GPU machine's own Python may lack is hidden from the script and from the processes that it starts."""


def measure(folder: Path, parts: str) -> list[dict[str, object]]:
    """Run the script with tiny sizes; return the rows of its record."""
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "sitecustomize.py").write_text(HIDE)
    record = folder / "gpu.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu", "--trial", "cpu", "--parts", parts, "--output", str(record)]
    path = os.pathsep.join([str(hidden), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in record.read_text().splitlines()]


def test_every_part_is_measured_once_without_ray_and_polars(tmp_path: Path) -> None:
    rows = measure(tmp_path, "device,drawing,swaps")
    assert [row for row in rows if "error" in row] == []
    figures = {str(row["name"]): row for row in rows}
    assert figures["swaps of 3 LoRAs"]["restored"]
    again = measure(tmp_path, "device,drawing,swaps,large")
    assert again[: len(rows)] == rows
    assert [row["name"] for row in again[len(rows) :] if "seconds" in row] == ["large"]
