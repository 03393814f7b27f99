"""FLOPs of a base are those that were published and those that torch counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from raymap.base.families.stable_diffusion import STABLE_DIFFUSION
from raymap.base.families.stable_diffusion import STABLE_DIFFUSION as SD
from raymap.base.flops.count import Flops, count_flops
from raymap.base.shapes import INDEX, config_of, shapes_in, shapes_of
from raymap.bench.models import SIZES, TARGETS, random_base
from raymap.driver import cost
from raymap.embedded.model import PIPELINE
from raymap.personalize.layers import full_rank, low_rank


def flops(folder: Path) -> Flops:
    """Return the FLOPs of a folder that has only the configurations, or only the weights, of denoiser and decoder."""
    if not (folder / INDEX).exists():
        parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
        (folder / INDEX).write_text(json.dumps(parts))
    side = config_of(folder, "unet")["sample_size"]
    return count_flops(SD, shapes_of(folder, "unet"), shapes_of(folder, "vae"), (side, side), 77)


def test_flops_of_stable_diffusion_1_5_are_the_published_ones(tmp_path: Path) -> None:
    """Published multiply-adds: 338.7 G and 1240 G without attention (BK-SDM, issue 53); attention adds 63.0 G."""
    vae = AutoencoderKL.load_config(PIPELINE / "vae") | {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    unet = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768}
    with torch.device("meta"):  # without weights, which would take seconds to draw
        assert UNet2DConditionModel.from_config(unet).config.block_out_channels == (320, 640, 1280, 1280)
    for part, config in (("unet", unet), ("vae", vae)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    found = flops(tmp_path)
    assert found.denoiser == pytest.approx(2 * (338.7e9 + 63.0e9), rel=0.005)
    assert found.decoder == pytest.approx(2 * 1240e9, rel=0.02)


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
    assert flops(folder) == Flops(*counts)


def test_a_decoder_whose_attention_is_named_as_in_older_files_takes_the_same_flops() -> None:
    pipeline = random_base("sd15", "meta")
    unet, vae = shapes_in(pipeline.unet), shapes_in(pipeline.vae)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {re.sub("|".join(names), lambda found: names[found[0]], name): shape for name, shape in vae.items()}
    assert len(older.keys() - vae.keys()) == 16
    assert count_flops(SD, unet, older, (64, 64), 77) == count_flops(SD, unet, vae, (64, 64), 77)


@pytest.mark.parametrize("method", ["lora", "custom_diffusion"])
def test_a_training_step_takes_the_passes_that_torch_counts(method: str) -> None:
    unet = random_base("sd15", "meta").unet
    layers = STABLE_DIFFUSION.keys_and_values
    wrapped = full_rank(unet, layers, 1) if method == "custom_diffusion" else low_rank(unet, TARGETS, 4, 4, 1, 0)
    with wrapped, FlopCounterMode(display=False) as counter, torch.device("meta"):
        predicted = unet(torch.empty(1, 4, 64, 64), torch.zeros(1), torch.empty(1, 77, 768)).sample
        forward = counter.get_total_flops()
        predicted.square().mean().backward()
    assert counter.get_total_flops() / forward == pytest.approx(cost.TRAINING_PASSES, rel=0.03)
