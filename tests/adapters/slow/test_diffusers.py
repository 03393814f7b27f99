"""Adapter files draw what diffusers itself draws with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from safetensors.torch import save_file

from raymap.adapters.custom_diffusion import key_of
from raymap.adapters.read import read_adapter
from raymap.adapters.resident import AdapterStore
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.base.skeleton import Skeleton
from raymap.embedded.model import PIPELINE
from tests.adapters.layouts import (
    TO_OUT,
    TO_Q,
    VECTORS,
    Tensors,
    halves,
    keys_and_values,
    kohya,
)


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Base.at(PIPELINE).skeleton


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.set_num_threads(1)
    return load(PIPELINE)


def test_a_kohya_file_updates_the_weights_that_diffusers_fuses(skeleton: Skeleton, tmp_path: Path) -> None:
    """Without the convolution and the text encoder: diffusers reads those by other names than a plain fuse shows."""
    ours, theirs = load(PIPELINE), load(PIPELINE)
    tensors: Tensors = {}
    for module in (TO_Q, TO_OUT):
        down, up = (t * 0.1 for t in halves(module, skeleton))
        tensors |= {f"{kohya(module)}.lora_down.weight": down, f"{kohya(module)}.lora_up.weight": up}
        tensors[f"{kohya(module)}.alpha"] = torch.tensor(1.5)
    save_file(tensors, tmp_path / "kohya.safetensors")
    store = AdapterStore(ours)
    store.add("a", read_adapter(tmp_path / "kohya.safetensors", skeleton).adapter)
    store.swap("a")
    theirs.load_lora_weights(tmp_path, weight_name="kohya.safetensors")
    theirs.fuse_lora()
    theirs.unload_lora_weights()
    mine, reference = ours.unet.state_dict(), theirs.unet.state_dict()
    assert not torch.equal(mine[f"{TO_Q}.weight"], load(PIPELINE).unet.state_dict()[f"{TO_Q}.weight"])
    assert all(torch.allclose(mine[k], reference[k], atol=1e-6) for k in mine)


def test_custom_diffusion_draws_what_its_attention_processor_draws(
    pipeline: StableDiffusionPipeline, skeleton: Skeleton, tmp_path: Path
) -> None:
    """Non-identity weights, and processors set by hand: diffusers' `load_attn_procs` leaves the base as it is."""
    weights = keys_and_values(pipeline, 0.05)
    save_file({key_of(k): v for k, v in weights.items()}, tmp_path / "pytorch_custom_diffusion_weights.safetensors")
    save_file({"<new1>": VECTORS[0].clone()}, tmp_path / "<new1>.safetensors")
    read = read_adapter(tmp_path, skeleton)
    assert read.method == "custom_diffusion"
    assert read.adapter.updates.keys() == {f"unet.{k}" for k in weights}
    ours, theirs = load(PIPELINE), load(PIPELINE)
    store = AdapterStore(ours)
    store.add("a", read.adapter)
    latents, text = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 96)
    base = ours.unet(latents, 10, text).sample
    store.swap("a")
    processors = {}
    for name, held in theirs.unet.attn_processors.items():
        attention = name.removesuffix(".processor")
        if not attention.endswith("attn2"):
            processors[name] = held
            continue
        key = weights[f"{attention}.to_k.weight"]
        processors[name] = CustomDiffusionAttnProcessor2_0(True, False, key.shape[0], key.shape[1])
        state = {f"to_{x}_custom_diffusion.weight": weights[f"{attention}.to_{x}.weight"] for x in "kv"}
        processors[name].load_state_dict(state)
    theirs.unet.set_attn_processor(processors)
    with torch.no_grad():
        found, reference = ours.unet(latents, 10, text).sample, theirs.unet(latents, 10, text).sample
    assert torch.equal(found, reference)
    assert (found - base).abs().mean() > 1e-3
