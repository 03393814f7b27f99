"""What a dry run foretells: FLOPs as published, hours, disk and money as sums of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raymap.base.model import Base
from raymap.driver import cost
from raymap.driver.attention import describe_attention
from raymap.driver.prepare import prepare
from raymap.embedded.model import PIPELINE
from raymap.study.file import load_study
from tests.commands import Ended
from tests.small_study import small_study

GPU = {"gpus_per_worker": 1, "accelerator_type": "H100"}


def test_hours_and_cost_on_a_gpu_follow_from_its_peak(tmp_path: Path) -> None:
    methods = {"lora": {"steps": 20, "batch_size": 2, "prior_weight": 1.0}}
    path = small_study(tmp_path, resources=GPU, dtype="bfloat16", methods=methods)
    found = cost.estimate(prepare(load_study(path)), price=2.0)
    denoiser, decoder = (Base.at(PIPELINE).flops().denoiser, Base.at(PIPELINE).flops().decoder)
    images = 7 * 2 * 3  # prompts, seeds; base, adapter and control
    assert (found.images, found.drawn) == (images, images)
    assert found.drawing_h == pytest.approx(images * (3 * 2 * denoiser + decoder) / (0.4 * 989e12) / 3600)
    passes = 20 * 2 * 2 * cost.TRAINING_PASSES
    drawn = 4 + 100  # samples, and images of the class; trainers draw with 20 guided steps
    training = passes * denoiser + drawn * (20 * 2 * denoiser + decoder)
    assert found.training_h == pytest.approx(training / (0.4 * 989e12) / 3600)
    assert "one H100 GPU at 40% of its bfloat16 peak;" in found.sentence
    float16 = cost.estimate(prepare(load_study(small_study(tmp_path, resources=GPU, dtype="float16", methods=methods))))
    assert float16.training_h == pytest.approx(training / (0.4 * 67e12) / 3600)
    assert "one H100 GPU at 40% of its float16 peak (in training of its float32 peak)" in float16.sentence
    assert found.sentence.endswith(f"at 2 an hour: {2 * (found.drawing_h + found.training_h):.2f}")


def test_images_that_are_proved_equal_cost_nothing(tmp_path: Path) -> None:
    path = small_study(tmp_path, methods={"textual_inversion": {"steps": 2}})
    found = cost.estimate(prepare(load_study(path)))
    assert (found.images, found.drawn) == (42, 14)


def test_a_dry_run_prints_the_cost_at_a_price_and_writes_nothing(
    study: Path, tmp_path: Path, command: Callable[..., Ended]
) -> None:
    ended = command("run", study, "--dry-run", "--price", "0.5", "--output", tmp_path / "run")
    assert ended.code == 0
    assert "42 images to draw" in ended.out
    assert "at 0.5 an hour: " in ended.out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_attention_says_how_many_passes(tmp_path: Path) -> None:
    line = describe_attention(prepare(load_study(small_study(tmp_path))))
    assert "7 prompts x 2 seeds x 2 adapters = 28 pairs (free, forced), 9 denoiser passes each" in line
