"""A batch that cannot be scored is a failure, not a number."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.commands import run_here
from tests.driver.ray.run_files import scores_of
from tests.small_study import small_study


def test_a_batch_that_cannot_be_scored_is_a_failure_not_a_number(finished: Path, tmp_path: Path, cluster: str) -> None:
    """An adapter that overflows to non-finite pixels: recorded, the rest drawn, exit code 3."""
    adapter = tmp_path / "overflow"
    shutil.copytree(finished / "adapters" / "star-cup-lora", adapter)
    weights = adapter / "pytorch_lora_weights.safetensors"
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
    save_file({k: torch.full_like(v, 1e17) for k, v in load_file(weights).items()}, weights, metadata=metadata)
    card = json.loads((adapter / "adapter.json").read_text())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (adapter / "adapter.json").write_text(json.dumps(card | {"name": "overflow", "sha256": digest}))
    path = small_study(
        tmp_path, subjects=None, adapters=[str(adapter)], prompts={"objects": ["a red car", "a blue cup"]}
    )
    output = tmp_path / "run"
    run_here("run", path, "--output", output, address=cluster, code=3)
    failures = [json.loads(line) for line in (output / "failures.jsonl").read_text().splitlines()]
    assert [(f["block"], f["adapter"]) for f in failures] == [(0, "overflow")]
    assert "non-finite" in failures[0]["problem"]
    assert set(scores_of(output)["adapter"]) == {"identity-lora"}
