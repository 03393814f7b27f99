"""Files of every kind of update, damaged in many ways: refused by name, or read with every tensor that they hold."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from raymap.adapters.resident import AdapterStore, weights_of
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.embedded.model import PIPELINE
from tests.adapters.kinds import KINDS, OF_CONVOLUTIONS, Maker, Tensors
from tests.adapters.layouts import RANK
from tests.adapters.slow.test_mutated import LIMIT_S, damage, outcome, tensors_of
from tests.checkpoints import write_checkpoint

NUMBER = 1000
LINEAR = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (64, 96),
    "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q": (64, 64),
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (96, 96),
    "diffusion_model.middle_block.1.transformer_blocks.0.ff.net.2": (160, 640),
    "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0": (128, 128),
}
CONVOLUTIONS = {
    "lora_unet_down_blocks_0_resnets_0_conv1": (64, 64, 3, 3),
    "diffusion_model.input_blocks.3.0.in_layers.2": (128, 64, 3, 3),
}
MODEL = "whole model"
PEFT = "peft"


def made(kind: str, folder: Path, model: Path) -> Path:
    """Write a file of a kind; the model's is a copy."""
    path = folder / "adapter.safetensors"
    if kind == MODEL:
        path.write_bytes(model.read_bytes())
        return path
    if kind == PEFT:
        at = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        halves = {f"{at}.lora_A.weight": torch.randn(RANK, 160), f"{at}.lora_B.weight": torch.randn(160, RANK)}
        save_file(halves, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 7, "r": RANK, "use_rslora": True}))
        return folder / "adapter_model.safetensors"
    tensors: Tensors = {}
    for seed, (module, shape) in enumerate((CONVOLUTIONS | ({} if kind in OF_CONVOLUTIONS else LINEAR)).items()):
        parts, _ = (KINDS | OF_CONVOLUTIONS)[kind][1](Maker(shape, seed))
        tensors |= {f"{module}.{end}": tensor.contiguous() for end, tensor in parts.items()}
    save_file(tensors, path)
    return path


ALL = (*KINDS, *OF_CONVOLUTIONS, PEFT, MODEL)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.set_num_threads(1)
    return load(PIPELINE)


def test_a_thousand_mutated_files_are_refused_by_name_or_read_whole(
    pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    random_ = random.Random(0)
    skeleton = Base.at(PIPELINE).skeleton
    tuned = load(PIPELINE)
    with torch.no_grad():
        tuned.unet.conv_in.weight += 0.1
    model = write_checkpoint(tuned, tmp_path / "model.safetensors")
    own = {name: weight.detach().clone() for name, weight in weights_of(pipeline).items()}
    refused, loaded = [], []
    kinds = [ALL[k % len(ALL)] for k in range(NUMBER // 5)] + [ALL[k % (len(ALL) - 1)] for k in range(4 * NUMBER // 5)]
    for number, kind in enumerate(kinds):  # the model's files are large
        (folder := tmp_path / str(number)).mkdir()
        path = made(kind, folder, model)
        damage(path, random_)
        began = time.process_time()
        read = outcome(path, skeleton)
        assert time.process_time() - began < LIMIT_S
        if isinstance(read, str):
            refused.append(kind)
            assert path.name in read
            assert "\n" not in read
            continue
        loaded.append(kind)
        adapter = read.adapter
        assert adapter.triggers is None, kind  # nothing of it is taken for a token, and no image is proved unchanged
        if kind != MODEL:
            changed = {name.rpartition(".")[0] for name in adapter.updates}
            named = [note for note in adapter.notes if "is not used" in note]
            assert len(changed) == len(modules_in(path)) - len(named), kind
        store = AdapterStore(pipeline)
        store.add("mutated", adapter)
        store.swap("mutated")
        live = weights_of(pipeline)
        assert all(torch.isfinite(live[name]).all() for name in adapter.updates), kind
        store.restore()
    assert all(torch.equal(weight, own[name]) for name, weight in weights_of(pipeline).items())
    assert {*loaded} == {*refused} == {*ALL}


def modules_in(path: Path) -> set[str]:
    """Return the modules that a file names, read without raymap."""
    found = set()
    for key in tensors_of(path):
        module = key.removesuffix(".weight").rpartition(".")[0] if key.endswith(".weight") else key.rpartition(".")[0]
        found.add(key.removesuffix(".weight") if key.endswith(".weight") and _is_ia3(path, key) else module)
    return found


def _is_ia3(path: Path, key: str) -> bool:
    return f"{key.removesuffix('.weight')}.on_input" in tensors_of(path)
