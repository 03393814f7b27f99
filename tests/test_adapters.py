"""Adapters: swapped in place as diffusers would apply them, restored to the bit, null when they are null."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from raymap.diffusion.adapters import LORA_FILE, METADATA, AdapterStore, LowRank, read_lora
from raymap.diffusion.base import load
from raymap.diffusion.sampling import PromptEmbeddings, draw, noise_generators
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.personalize.lora import add_lora, save_lora, train_lora
from raymap.study import LoraRecipe, SamplerSettings

PROMPTS = ["a red car on a street", "a city at night", "a brown bear on snow"]
SEEDS = (3, 5, 7)
SAMPLER = SamplerSettings(steps=4, guidance_scale=4.0)
RECIPE = LoraRecipe(steps=12, batch_size=2, learning_rate=2e-3, alpha=8.0)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.set_num_threads(1)
    return load(PIPELINE)


@pytest.fixture(scope="module")
def trained(pipeline: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA trained for a few steps on noise, with alpha 8 at rank 4 (so that losing alpha would show)."""
    folder = tmp_path_factory.mktemp("lora")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    add_lora(pipeline, RECIPE)
    losses = [step.loss for step in train_lora(pipeline, images, "a photo of sks cup", RECIPE)]
    assert len(losses) == 2
    save_lora(pipeline, folder)
    return folder


def drawn(pipeline: StableDiffusionPipeline) -> np.ndarray:
    return draw(pipeline, PromptEmbeddings(pipeline), PROMPTS, SEEDS, SAMPLER, 4)


def by_diffusers(pipeline: StableDiffusionPipeline) -> np.ndarray:
    """Draw with the pipeline's own call alone: its prompts, its rounding, the same padded batch."""
    images = pipeline(
        [*PROMPTS, PROMPTS[-1]],
        num_inference_steps=SAMPLER.steps,
        guidance_scale=SAMPLER.guidance_scale,
        generator=noise_generators((*SEEDS, SEEDS[-1])),
    ).images
    return np.stack([np.asarray(image) for image in images])[:3]


def weights_digest(pipeline: StableDiffusionPipeline) -> str:
    total = hashlib.sha256()
    for name, value in sorted(pipeline.unet.state_dict().items()):
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def test_training_leaves_the_base_as_it_was(pipeline: StableDiffusionPipeline, trained: Path) -> None:
    assert weights_digest(pipeline) == weights_digest(load(PIPELINE))


def test_the_base_draws_what_diffusers_draws(pipeline: StableDiffusionPipeline) -> None:
    ours, theirs = drawn(pipeline).astype(int), by_diffusers(pipeline).astype(int)
    # diffusers encodes the prompts in one batch, we one by one: last bits may differ, a grey value at most.
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-3


def test_a_swap_draws_what_diffusers_draws_with_the_file_loaded(trained: Path) -> None:
    pipeline, reference = load(PIPELINE), load(PIPELINE)
    store = AdapterStore(pipeline.unet)
    store.add("a", read_lora(trained / LORA_FILE, pipeline.unet))
    base = drawn(pipeline)
    store.swap("a")
    ours = drawn(pipeline)
    reference.load_lora_weights(trained)
    theirs = by_diffusers(reference)
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    effect = np.abs(ours.astype(int) - base.astype(int))
    assert effect.mean() > 1
    # diffusers adds B(Ax) to Wx, a swap multiplies by W + BA: equal but for rounding.
    assert difference.max() <= 2
    assert difference.mean() < effect.mean() / 100


def test_a_swap_writes_the_weights_that_fusing_writes(trained: Path) -> None:
    pipeline, reference = load(PIPELINE), load(PIPELINE)
    store = AdapterStore(pipeline.unet)
    store.add("a", read_lora(trained / LORA_FILE, pipeline.unet))
    store.swap("a")
    reference.load_lora_weights(trained)
    reference.fuse_lora()
    reference.unload_lora_weights()
    ours, theirs = pipeline.unet.state_dict(), reference.unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-7, rtol=1e-6) for k in ours)


def test_the_saved_alpha_is_read_back(trained: Path, pipeline: StableDiffusionPipeline) -> None:
    with safe_open(trained / LORA_FILE, framework="pt") as file:
        config = json.loads(file.metadata()[METADATA])
    assert config["unet.lora_alpha"] == 8.0
    assert {u.scale for u in read_lora(trained / LORA_FILE, pipeline.unet).values()} == {2.0}


def test_many_swaps_restore_the_base_to_the_bit_and_keep_every_pointer(trained: Path) -> None:
    pipeline = load(PIPELINE)
    store = AdapterStore(pipeline.unet)
    updates = read_lora(trained / LORA_FILE, pipeline.unet)
    names = list(updates)
    for k in range(5):
        part = {name: updates[name] for name in names[k :: 2 + k % 3]}
        store.add(f"a{k}", {n: LowRank(u.down * (k + 1), u.up, u.scale) for n, u in part.items()})
    before, pointers = weights_digest(pipeline), [p.data_ptr() for p in pipeline.unet.parameters()]
    images = drawn(pipeline)
    order = random.Random(0)
    for _ in range(200):
        store.swap(order.choice(["a0", "a1", "a2", "a3", "a4", None]))
    store.swap("a3")
    assert weights_digest(pipeline) != before
    store.restore()
    assert weights_digest(pipeline) == before
    assert [p.data_ptr() for p in pipeline.unet.parameters()] == pointers
    assert np.array_equal(drawn(pipeline), images)


def test_a_null_adapter_changes_no_pixel(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    base = drawn(pipeline)
    add_lora(pipeline, RECIPE)
    save_lora(pipeline, tmp_path)
    store = AdapterStore(pipeline.unet)
    store.add("null", read_lora(tmp_path / LORA_FILE, pipeline.unet))
    store.swap("null")
    assert np.array_equal(drawn(pipeline), base)
    store.restore()


def test_training_is_repeatable_and_lowers_the_loss(tmp_path: Path) -> None:
    images = np.full((2, 64, 64, 3), (200, 40, 120), dtype=np.uint8)
    recipe = LoraRecipe(steps=60, batch_size=4, learning_rate=2e-3)
    digests, losses = [], []
    for k in range(2):
        pipeline = load(PIPELINE)
        add_lora(pipeline, recipe)
        losses = [step.loss for step in train_lora(pipeline, images, "a photo of sks cup", recipe)]
        save_lora(pipeline, tmp_path / str(k))
        digests.append((tmp_path / str(k) / LORA_FILE).read_bytes())
    assert digests[0] == digests[1]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


def damaged(source: Path, target: Path, kind: str) -> None:
    tensors = load_file(source)
    key = next(iter(tensors))
    if kind == "nan":
        tensors[key][0] = float("nan")
    elif kind == "unknown key":
        tensors["unet.something.weight"] = tensors.pop(key)
    elif kind == "unknown module":
        tensors[key.replace("unet.", "unet.no_such_block.")] = tensors.pop(key)
    elif kind == "shape":
        tensors[key] = tensors[key][:, :-1].contiguous()
    elif kind == "half missing":
        del tensors[key]
    elif kind == "empty":
        tensors = {}
    save_file(tensors, target)
    if kind == "truncated":
        target.write_bytes(target.read_bytes()[:-7])


@pytest.mark.parametrize(
    "kind", ["nan", "unknown key", "unknown module", "shape", "half missing", "empty", "truncated"]
)
def test_a_damaged_file_is_refused(pipeline: StableDiffusionPipeline, trained: Path, tmp_path: Path, kind: str) -> None:
    damaged(trained / LORA_FILE, tmp_path / LORA_FILE, kind)
    with pytest.raises(InputError, match=LORA_FILE):
        read_lora(tmp_path / LORA_FILE, pipeline.unet)
