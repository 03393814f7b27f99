"""What a dry run foretells: FLOPs as published, hours, disk and money as sums of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from raymap.base.flops import counted, flops
from raymap.base.shapes import shapes_in
from raymap.bench.models import SIZES, TARGETS, random_base
from raymap.driver import cost
from raymap.driver.prepare import prepare
from raymap.embedded.model import PIPELINE
from raymap.personalize.layers import full_rank, low_rank
from raymap.store.folder import RunFolder
from raymap.study.file import load_study
from raymap.study.methods.custom_diffusion import KEYS_AND_VALUES
from tests.conftest import small_study

GPU = {"gpus_per_worker": 1, "accelerator_type": "H100"}


def test_flops_of_stable_diffusion_1_5_are_the_published_ones(tmp_path: Path) -> None:
    """Published multiply-adds: 338.7 G and 1240 G without attention (BK-SDM, issue 53); attention adds 63.0 G."""
    vae = AutoencoderKL.load_config(PIPELINE / "vae") | {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    unet = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768}
    assert UNet2DConditionModel.from_config(unet).config.block_out_channels == (320, 640, 1280, 1280)
    for part, config in (("unet", unet), ("vae", vae)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    denoiser, decoder = flops(tmp_path)
    assert denoiser == pytest.approx(2 * (338.7e9 + 63.0e9), rel=0.005)
    assert decoder == pytest.approx(2 * 1240e9, rel=0.02)


@pytest.mark.parametrize("size", ["embedded", *SIZES])
def test_flops_are_those_that_torch_counts(size: str, tmp_path: Path) -> None:
    if size == "embedded":
        folder = PIPELINE
    else:
        folder, pipeline = tmp_path, random_base(size, "meta")
        pipeline.unet.save_config(folder / "unet")
        pipeline.vae.save_config(folder / "vae")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
        latents = torch.empty(1, 4, unet.config.sample_size, unet.config.sample_size)
        text = torch.empty(1, 77, unet.config.cross_attention_dim)
    counts = []
    for step in (lambda: unet(latents, 1, text), lambda: vae.decode(latents)):
        with FlopCounterMode(display=False) as counter:
            step()
        counts.append(counter.get_total_flops())
    assert flops(folder) == tuple(counts)


def test_a_decoder_whose_attention_is_named_as_in_older_files_takes_the_same_flops() -> None:
    pipeline = random_base("sd15", "meta")
    unet, vae = shapes_in(pipeline.unet), shapes_in(pipeline.vae)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {re.sub("|".join(names), lambda found: names[found[0]], name): shape for name, shape in vae.items()}
    assert len(older.keys() - vae.keys()) == 16
    assert counted(unet, older, 64) == counted(unet, vae, 64)


def test_hours_and_cost_on_a_gpu_follow_from_its_peak(tmp_path: Path) -> None:
    methods = {"lora": {"steps": 20, "batch_size": 2, "prior_weight": 1.0}}
    path = small_study(tmp_path, resources=GPU, dtype="bfloat16", methods=methods)
    found = cost.estimate(prepare(load_study(path)))
    denoiser, decoder = flops(PIPELINE)
    images = 7 * 2 * 3  # prompts, seeds; base, adapter and control
    assert (found.images, found.drawn) == (images, images)
    assert found.drawing_h == pytest.approx(images * (3 * 2 * denoiser + decoder) / (0.4 * 989e12) / 3600)
    passes = 20 * 2 * 2 * cost.TRAINING_PASSES
    drawn = 4 + 100  # samples, and pictures of the class; trainers draw with 20 guided steps
    training = passes * denoiser + drawn * (20 * 2 * denoiser + decoder)
    assert found.training_h == pytest.approx(training / (0.4 * 67e12) / 3600)
    assert "one H100 GPU at 40% of its bfloat16 peak (in training of its float32 peak)" in found.sentence()
    assert found.sentence(2.0).endswith(f"at 2 an hour: {2 * (found.drawing_h + found.training_h):.2f}")


@pytest.mark.parametrize("method", ["lora", "custom_diffusion"])
def test_a_training_step_takes_the_passes_that_torch_counts(method: str) -> None:
    unet = random_base("sd15", "meta").unet
    wrapped = (
        full_rank(unet, KEYS_AND_VALUES, 1) if method == "custom_diffusion" else low_rank(unet, TARGETS, 4, 4, 1, 0)
    )
    with wrapped, FlopCounterMode(display=False) as counter, torch.device("meta"):
        predicted = unet(torch.empty(1, 4, 64, 64), torch.zeros(1), torch.empty(1, 77, 768)).sample
        forward = counter.get_total_flops()
        predicted.square().mean().backward()
    assert counter.get_total_flops() / forward == pytest.approx(cost.TRAINING_PASSES, rel=0.03)


def test_images_that_are_proved_equal_cost_nothing(tmp_path: Path) -> None:
    path = small_study(tmp_path, methods={"textual_inversion": {"steps": 2}})
    found = cost.estimate(prepare(load_study(path)))
    assert (found.images, found.drawn) == (42, 14)


def test_the_disk_that_is_foretold_is_what_a_run_takes(study: Path, finished: Path) -> None:
    held = RunFolder(finished)
    files = [p for folder in ("images", "scores", "features") for p in (held.root / folder).rglob("*") if p.is_file()]
    files += held.root.glob("adapters/*/*.safetensors")
    taken = sum(p.stat().st_size for p in files)
    assert cost.estimate(prepare(load_study(study))).bytes == pytest.approx(taken, rel=0.5)


def test_a_dry_run_prints_the_cost_at_a_price_and_writes_nothing(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymap.cli import main

    command = ["raymap", "run", str(study), "--dry-run", "--price", "0.5", "--output", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "42 images to draw" in said
    assert "at 0.5 an hour: " in said
    assert not (tmp_path / "run").exists()
