"""An audit of a LoRA goes through Ray to its report on any family of bases.

Two families stand for all, because each audit starts actors of its own. With RAYMAP_ALL_FAMILIES=1 every family is
audited, as `python -m tools.families_page` does.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from raymap.base.model import Base
from raymap.base.pipeline import denoiser_of, load
from tests.commands import finish, raymap_command
from tests.pipelines import TINY, save_tiny

AUDITED = tuple(TINY) if os.environ.get("RAYMAP_ALL_FAMILIES") else ("stable_diffusion_xl", "flux")
SIDE = {"hunyuan_dit": 128}
"""The side of images in pixels where 64 are too few for a family's autoencoder."""
SETTINGS = ("clip=embedded", "lpips=embedded", "sampler.steps=2", "batch_size=4")


@pytest.mark.parametrize("name", AUDITED)
def test_an_audit_ends_with_a_report_and_a_control_of_exactly_zero(name: str, tmp_path: Path) -> None:
    base = save_tiny(name, tmp_path / "base", SIDE.get(name, 64))
    _write_lora(base, tmp_path / "lora.safetensors")
    chosen = [part for setting in SETTINGS for part in ("--set", setting)]
    asked = ("--base", base, "--suite", "embedded-quick", "--limit", "3", "--seeds", "2", "--output", tmp_path / "run")
    finish(raymap_command("audit", "--adapter", tmp_path / "lora.safetensors", *asked, *chosen))
    scores = pl.concat([pl.read_ipc(path) for path in sorted((tmp_path / "run" / "scores").glob("*.arrow"))])
    of = {kind: scores.filter((pl.col("method") == "identity") == (kind == "control")) for kind in ("control", "lora")}
    assert {kind: len(rows) for kind, rows in of.items()} == {"control": 6, "lora": 6}
    assert of["control"]["lpips"].abs().max() == 0
    assert (of["control"]["clip_base"] == of["control"]["clip_adapted"]).all()
    assert (of["lora"]["lpips"] > 0).all()
    assert (tmp_path / "run" / "report" / "index.html").stat().st_size > 10_000
    assert json.loads((tmp_path / "run" / "statistics.json").read_text())


def _write_lora(base: Path, path: Path) -> None:
    """Write a LoRA of the denoiser's attention in diffusers' layout."""
    component = Base.at(base).parts.denoisers[0]
    random = torch.Generator().manual_seed(0)
    halves = {}
    for name, module in denoiser_of(load(base)).named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            halves[f"{component}.{name}.lora_A.weight"] = torch.randn(2, module.in_features, generator=random)
            halves[f"{component}.{name}.lora_B.weight"] = torch.randn(module.out_features, 2, generator=random)
    save_file(halves, path)
