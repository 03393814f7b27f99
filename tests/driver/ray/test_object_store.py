"""A run whose folder is a bucket: a real S3-compatible server, the real command, and a failure in the middle."""

from __future__ import annotations

import json
from pathlib import Path

from raymap.store.files import place, read_file
from tests.bucket import Gate
from tests.commands import finish, raymap_command


def test_a_run_on_a_bucket_gives_the_same_scores_and_survives_a_refused_put(
    gate: Gate, finished: Path, study: Path, tmp_path: Path
) -> None:
    """The same study, output a bucket; puts under scores/ fail from the second block on: exit code 3, then resumed."""
    gate.broken = "scores/00001-"
    command = raymap_command("run", study, "--output", "s3://runs/one")
    assert "cannot be written" in finish(command, 3).stderr
    gate.broken = None
    committed = [path for path in gate.puts if "/ledger/" in path]
    assert 0 < len(committed) < 12
    finish(command)
    root = place("s3://runs/one")
    for path in [*(finished / "scores").iterdir(), finished / "noise.arrow", finished / "map.arrow"]:
        assert read_file(root / path.relative_to(finished).as_posix()) == path.read_bytes(), path.name
    assert len(read_file(root / "ledger.jsonl").splitlines()) == 12
    assert len([path for path in gate.puts if "/ledger/" in path]) == 12  # nothing was committed twice
    assert json.loads(read_file(root / "run.json"))["images"] == 2 * 7 * 3
    assert b"<html" in read_file(root / "report" / "index.html")
    assert not gate.partial  # each object was read in one request, which no other process can disturb
