"""All methods in one run: an inversion is recorded as identical by proof, and what can make it act does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from raymap.actors.generator import Generator
from raymap.actors.specs import GeneratorSpec
from raymap.embedded.model import PIPELINE
from raymap.plan.blocks import Block, Item
from raymap.study.adapter import BASE
from raymap.study.model import SamplerSettings
from tests.commands import run_here
from tests.once import made_once
from tests.small_study import small_study

ITEMS = tuple(
    Item(f"p{k:03d}", text, "animals", seed)
    for k, text in enumerate(["a koala on snow", "a red car on a street"])
    for seed in (0, 1)
)
BLOCK = Block(0, ITEMS, ())


@pytest.fixture(scope="session")
def all_methods(shared: Path, cluster: str) -> Path:
    """A run of every method by the real commands, `train` first, a few optimizer steps each; laid out channels last."""
    return made_once(shared / "methods", lambda folder: run_all_methods(folder, cluster)) / "run"


def run_all_methods(folder: Path, cluster: str) -> None:
    folder.mkdir()
    short = {"steps": 3, "batch_size": 2, "learning_rate": 1e-3}
    methods = {
        "textual_inversion": short | {"vectors": 2},
        "lora": short,
        "custom_diffusion": short | {"class_images": 2},
    }
    save_file({"emb_params": torch.randn(1, 96)}, folder / "brought along.safetensors")
    brought = [{"path": "brought along.safetensors", "category": "style"}]
    study = small_study(folder, methods=methods, adapters=brought, images="report", speed={"channels_last": True})
    for name in ("train", "run"):
        ended = run_here(name, study, "--output", folder / "run", address=cluster)
        (folder / "run" / f"{name}.txt").write_text(ended.out)


def test_another_memory_layout_is_another_run(all_methods: Path, call: Callable[..., tuple[int, str]]) -> None:
    assert yaml.safe_load((all_methods / "study.yaml").read_text())["speed"]["channels_last"] is True
    study = all_methods.parent / "study.yaml"
    code, said = call("run", study, "--output", all_methods, "--set", "speed.channels_last=false")
    assert (code, "holds a run of another study" in " ".join(said.split())) == (2, True)


def test_train_trains_and_run_goes_on_from_there(all_methods: Path) -> None:
    said = (all_methods / "train.txt").read_text()
    assert said.count("adapter: ") == 6
    assert "drawing" not in said
    assert "training" not in (all_methods / "run.txt").read_text()
    sessions = json.loads((all_methods / "run.json").read_text())["sessions"]
    assert len(sessions) == 1
    assert "training_s" not in sessions[0]


def test_the_images_foretold_as_proved_are_those_that_were_not_drawn(all_methods: Path) -> None:
    scores = pl.concat([pl.read_ipc(p) for p in sorted((all_methods / "scores").glob("*.arrow"))])
    undrawn = scores.filter(~pl.col("drawn")).height
    foretold = re.findall(r"(\d+) of them proved", (all_methods / "run.txt").read_text())
    assert len(foretold) == 2, "of the study's images, and of the controls'"
    assert undrawn == sum(int(count) for count in foretold) > 0


def test_every_method_and_its_null_adapter_is_in_the_map(all_methods: Path) -> None:
    scores = pl.concat([pl.read_ipc(p) for p in sorted((all_methods / "scores").glob("*.arrow"))])
    names = {f"{s}-{m}" for s in ("star-cup", "identity") for m in ("textual_inversion", "lora", "custom_diffusion")}
    assert set(scores["adapter"]) == names | {"brought-along"}
    inversions = scores.filter(pl.col("adapter").str.ends_with("inversion") | (pl.col("adapter") == "brought-along"))
    assert not inversions["drawn"].any()
    assert inversions["adapted_sha256"].to_list() == inversions["base_sha256"].to_list()
    others = scores.filter(~pl.col("adapter").is_in(inversions["adapter"].unique().to_list()))
    assert others["drawn"].all()
    zero = scores.filter((pl.col("method") == "identity") | ~pl.col("drawn"))
    assert (zero["lpips"] == 0).all()
    assert (zero["clip_base"] == zero["clip_adapted"]).all()
    for method in ("lora", "custom_diffusion"):
        assert scores.filter(pl.col("method") == method)["lpips"].max() > 0  # type: ignore[operator]
    brought = pl.read_ipc(all_methods / "map.arrow").filter(pl.col("adapter") == "brought-along")
    assert set(brought.filter(pl.col("target"))["prompt_category"]) == {"styles"}


def test_the_card_says_all_of_the_recipe(all_methods: Path) -> None:
    card = json.loads((all_methods / "adapters" / "star-cup-custom_diffusion" / "adapter.json").read_text())
    assert card["method"] == "custom_diffusion"
    assert card["files"] == ["<new1>.safetensors", "pytorch_custom_diffusion_weights.safetensors"]
    assert card["phrase"] == "<new1> cup"
    assert card["recipe"]["prior_weight"] == 1.0
    assert card["recipe"]["weight_decay"] == 0.01
    assert card["losses"][-1][0] == 3
    with Image.open(all_methods / "adapters" / "star-cup-custom_diffusion" / "samples.png") as samples:
        assert samples.size == (4 * 64, 64)


def generator(folder: Path, dtype: str) -> Generator:
    sampler = SamplerSettings(steps=3, guidance_scale=3.0)
    return Generator(GeneratorSpec(PIPELINE, {"cup": folder}, sampler, 4, dtype, False, False, 1, "cpu"))


def test_a_run_in_16_bits_draws_other_pixels_and_its_null_adapter_none(all_methods: Path, tmp_path: Path) -> None:
    null = all_methods / "adapters" / "identity-lora"
    half, full = generator(null, dtype="bfloat16"), generator(null, dtype="float32")
    base, _ = half.draw(BLOCK, BASE)
    assert np.array_equal(half.draw(BLOCK, "cup")[0], base)
    difference = np.abs(base.astype(int) - full.draw(BLOCK, BASE)[0])
    assert 0 < difference.mean() < 8
