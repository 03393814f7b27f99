"""The committed study of the paper goes its whole way: real pipeline classes, real command, two subjects."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import polars as pl
import pytest
import yaml
from safetensors import safe_open

from benchmarks import small_paper
from raymap.base.model import Base
from raymap.bench.models import SIZES, random_base
from raymap.driver.prepare import prepare
from raymap.study.file import load_study
from raymap.study.model import Study
from raymap.study.suite import CATEGORIES, read_suite


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cluster: str) -> Path:
    """What the benchmark leaves at its smallest size."""
    folder = tmp_path_factory.mktemp("small-paper")
    with mock.patch.dict(os.environ, RAY_ADDRESS=cluster):
        small_paper.main(["--side", "64", "--sampler-steps", "2", "--workers", "1", "--output", str(folder)])
    return folder


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    """The study that the run folder says it holds."""
    raw = yaml.safe_load((folder / "run" / "study.yaml").read_text())
    return Study.model_validate(raw)


def test_what_was_run_is_the_papers_study_but_for_its_size(study: Study) -> None:
    paper = load_study(small_paper.JOB)
    assert {subject.name for subject in study.subjects} < {subject.name for subject in paper.subjects}
    assert [prompt.category for prompt in study.prompts] == list(CATEGORIES)
    assert {prompt.text for prompt in study.prompts} < {p.text for p in read_suite("paper", "suite", Path())}
    assert study.sampler.guidance_scale == paper.sampler.guidance_scale
    assert study.resources.train_together == paper.resources.train_together
    for method, recipe in paper.methods.items():
        fewer = {"steps", "class_images"}
        assert study.methods[method].model_dump(exclude=fewer) == recipe.model_dump(exclude=fewer), method


def test_the_base_has_stable_diffusions_classes_and_blocks(folder: Path) -> None:
    index = json.loads((folder / "base" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    unet, vae, text = (
        json.loads((folder / "base" / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder")
    )
    assert unet["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert (unet["layers_per_block"], unet["attention_head_dim"], len(vae["block_out_channels"])) == (2, 8, 4)
    assert (text["num_hidden_layers"], text["vocab_size"]) == (12, 49408)


def test_every_image_is_accounted_for_and_no_control_moves(folder: Path) -> None:
    """Six prompts, two seeds; two subjects by three methods, and three controls."""
    scores = pl.concat([pl.read_ipc(path.read_bytes()) for path in (folder / "run" / "scores").iterdir()])
    assert scores.group_by("adapter").len()["len"].to_list() == [12] * 9
    controls = scores.filter(pl.col("method") == "identity")
    assert controls["base_sha256"].equals(controls["adapted_sha256"])
    assert controls["lpips"].max() == 0
    proved = scores.filter(~pl.col("drawn"))
    assert set(proved["adapter"]) == {f"{of}-textual_inversion" for of in (*small_paper.SUBJECTS, "identity")}
    assert proved.height == 36
    for name in ("lora", "custom_diffusion"):
        assert scores.filter(pl.col("method") == name)["lpips"].max() > 0, name  # type: ignore[operator]
    session = json.loads((folder / "run" / "run.json").read_text())["sessions"][-1]
    assert session["drawn"] == 120
    assert not (folder / "run" / "failures.jsonl").exists()


def test_a_report_says_so(folder: Path) -> None:
    statistics = json.loads((folder / "run" / "statistics.json").read_text())
    assert statistics["identity_control"]["exact"] is True
    assert statistics["identity_control"]["cells"] == 12
    assert statistics["identity_control"]["proved"] == ["identity-textual_inversion"]
    page = (folder / "run" / "report" / "index.html").read_text()
    assert all(f"{subject}-{method}" in page for subject in small_paper.SUBJECTS for method in small_paper.STEPS)


def test_adapters_have_the_size_that_is_foretold(folder: Path, study: Study) -> None:
    for order in prepare(study).orders:
        held = 0
        for path in (folder / "run" / "adapters" / order.name).glob("pytorch*.safetensors"):
            with safe_open(path, framework="numpy") as file:
                held += sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
        assert order.size(Base.at(folder / "base").skeleton) == held, order.name


def test_width_one_is_the_real_size() -> None:
    assert small_paper.narrowed(1, 512) == SIZES["sd15"]
    narrow = random_base(small_paper.narrowed(0.1, 512), "meta")
    assert narrow.unet.config.block_out_channels == [32, 64, 128, 128]
    assert narrow.text_encoder.config.hidden_size == narrow.unet.config.cross_attention_dim == 64


def test_a_run_that_lacks_something_is_refused(folder: Path) -> None:
    report = folder / "run" / "report" / "index.html"
    held = report.read_bytes()
    report.write_bytes(b"")
    try:
        with pytest.raises(RuntimeError, match="lacks a report"):
            small_paper.check(folder / "run")
    finally:
        report.write_bytes(held)
