"""Programs beside which raymap is measured come to the scores of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from raymap.bench.peers import __main__ as peers
from raymap.bench.peers.contest import Contest
from raymap.bench.setups import Setup

TINY: dict[str, Any] = {"base": "random:tiny", "steps": 2, "device": "cpu"}


def brought(finished: Path, folder: Path) -> Path:
    """Write a study of the finished run's prompts, seeds and sampler that brings its LoRA along."""
    study = yaml.safe_load((finished / "study.yaml").read_text())
    lora = next(
        p.parent for p in finished.glob("adapters/*/adapter.json") if json.loads(p.read_text())["method"] == "lora"
    )
    kept = {key: study[key] for key in ("name", "sampler", "seeds", "batch_size")}
    kept["speed"] = {"compile": "default"}
    prompts = [{"text": prompt["text"], "category": prompt["category"]} for prompt in study["prompts"]]
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(kept | {"prompts": prompts, "adapters": [{"path": str(lora), "name": "lora"}]}))
    return path


@pytest.mark.parametrize("program", ["one", "batched", "compiled"])
def test_a_peer_comes_to_the_scores_of_a_run(
    program: str,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, mode: compiled.append(f"{type(module)} {mode}"))
    peers.main(program, brought(finished, tmp_path), tmp_path / "scores.arrow")
    assert float(capsys.readouterr().out.split()[-1]) > 0
    assert len(compiled) == (2 if program == "compiled" else 0)
    theirs = pl.read_ipc((tmp_path / "scores.arrow").read_bytes())
    texts = {p["id"]: p["text"] for p in yaml.safe_load((finished / "study.yaml").read_text())["prompts"]}
    own = pl.concat([pl.read_ipc(path.read_bytes()) for path in (finished / "scores").iterdir()])
    own = own.filter(pl.col("method") == "lora").with_columns(prompt=pl.col("prompt_id").replace_strict(texts))
    both = own.join(theirs, on=["prompt", "seed"], validate="1:1")
    assert len(both) == len(theirs) == 14
    assert both["lpips"].max() > 1e-3  # type: ignore[operator]
    for name in ("clip_base", "clip_adapted", "lpips"):
        assert np.allclose(both[name], both[f"{name}_right"], atol=1e-3), name


def test_a_contest_counts_what_the_proof_spares(tmp_path: Path) -> None:
    contest = Contest(Setup(**TINY, batch_size=4), 1, tmp_path)
    for program in ("raymap", "batched"):
        contest.run(program, 0)
    assert [(r["program"], r["images"], r["drawn"]) for r in contest.measured()] == [
        ("raymap", 16, 12),
        ("batched", 16, 16),
    ]
    assert contest.measured()[0]["difference"] == 0
    assert contest.measured()[1]["difference"] < 1e-3
    before = contest.path.read_bytes()
    Contest(Setup(**TINY, batch_size=4), 1, tmp_path).run("batched", 0)
    assert contest.path.read_bytes() == before
