"""What raymap trains, diffusers' own loaders read: the triggered prompt draws the same images as a swap does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from safetensors.torch import load_file

from raymap.adapters.custom_diffusion import CUSTOM_DIFFUSION_FILE, key_of
from raymap.adapters.read import read_adapter
from raymap.adapters.resident import AdapterStore
from raymap.adapters.textual_inversion import INVERSION_FILE
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw, noise_generators
from raymap.embedded.model import PIPELINE
from raymap.embedded.world.subjects import STAR_CUP
from raymap.personalize.lessons import Lesson, trainer_of
from raymap.study.methods.custom_diffusion import CustomDiffusionRecipe
from raymap.study.methods.textual_inversion import InversionRecipe
from raymap.study.model import SamplerSettings
from raymap.study.recipes import Recipe

SEEDS = (3, 5)
SAMPLER = SamplerSettings(steps=4, guidance_scale=4.0)
CUSTOM_DIFFUSION_PROMPTS = ["a photo of <new1> cup", "a <new1> cup in a city"]


def taught(method: str, recipe: Recipe, trigger: str, folder: Path) -> Path:
    """Train the star cup for a few large steps."""
    rng = np.random.default_rng(0)
    images = np.stack([STAR_CUP.render(rng) for _ in range(3)])
    lesson = Lesson(images, trigger, (f"a photo of {trigger}",), "cup", "cup", folder)
    list(trainer_of(method)(load(PIPELINE), (lesson,), recipe, folder / "checkpoint.pt"))
    return folder


@pytest.fixture(scope="module")
def inversion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = InversionRecipe(steps=8, batch_size=2, learning_rate=5e-2, vectors=3)
    return taught("textual_inversion", recipe, "<star>", tmp_path_factory.mktemp("inversion"))


@pytest.fixture(scope="module")
def custom_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = CustomDiffusionRecipe(steps=8, batch_size=2, learning_rate=3e-3, class_images=2)
    return taught("custom_diffusion", recipe, "<new1>", tmp_path_factory.mktemp("custom_diffusion"))


def by_raymap(folder: Path, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what the base draws, and what it draws with the folder's adapter swapped in."""
    pipeline = load(PIPELINE)
    store = AdapterStore(pipeline)
    store.add("a", read_adapter(folder, Base.at(PIPELINE).skeleton).adapter)
    encoder = PromptEncoder(pipeline, store)
    base = draw(pipeline, encoder, prompts, SEEDS, SAMPLER, 2)
    store.swap("a")
    return base, draw(pipeline, encoder, prompts, SEEDS, SAMPLER, 2)


def by_diffusers(pipeline: StableDiffusionPipeline, prompts: list[str]) -> np.ndarray:
    images = pipeline(
        prompts,
        num_inference_steps=SAMPLER.steps,
        guidance_scale=SAMPLER.guidance_scale,
        generator=noise_generators(SEEDS),
        output_type="np",
    ).images
    return (images * 255).round().astype(np.uint8)


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other.astype(int))


def test_an_inversion_draws_the_same_through_diffusers(inversion: Path) -> None:
    prompts = ["a photo of <star>", "a <star> in a city"]
    base, ours = by_raymap(inversion, prompts)
    pipeline = load(PIPELINE)
    pipeline.load_textual_inversion(inversion, weight_name=INVERSION_FILE)
    theirs = by_diffusers(pipeline, prompts)
    assert apart(ours, base).mean() > 1
    # raymap encodes each prompt alone, diffusers both in one batch: equal but for rounding.
    assert apart(ours, theirs).max() <= 1


@pytest.fixture(scope="module")
def drawn_by_raymap(custom_diffusion: Path) -> tuple[np.ndarray, np.ndarray]:
    return by_raymap(custom_diffusion, CUSTOM_DIFFUSION_PROMPTS)


@pytest.mark.parametrize("processor", ["as diffusers loads it", "with scaled dot products"])
def test_custom_diffusion_draws_the_same_through_diffusers(
    processor: str, custom_diffusion: Path, drawn_by_raymap: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """diffusers reads the pickled layout alone, in which self-attention's processors are empty, and applies it
    only when it is given `_pipeline` (its issues 4634 and 9320)."""
    base, ours = drawn_by_raymap
    pipeline = load(PIPELINE)
    weights = load_file(custom_diffusion / CUSTOM_DIFFUSION_FILE)
    empty: dict[str, dict[str, torch.Tensor]] = {
        name: {} for name in pipeline.unet.attn_processors if ".attn1." in name
    }
    pickled = tmp_path / "pytorch_custom_diffusion_weights.bin"
    torch.save(weights | empty, pickled)
    found = read_adapter(pickled, Base.at(PIPELINE).skeleton).adapter.updates
    assert len(found) == len(weights)
    for name, update in found.items():
        nothing = torch.zeros(Base.at(PIPELINE).skeleton.shapes[name])
        assert torch.equal(update.delta(nothing), weights[key_of(name.removeprefix("unet."))]), name
    pipeline.unet.load_attn_procs(
        tmp_path, weight_name="pytorch_custom_diffusion_weights.bin", use_safetensors=False, _pipeline=pipeline
    )
    pipeline.load_textual_inversion(custom_diffusion, weight_name="<new1>.safetensors")
    if processor == "with scaled dot products":
        pipeline.unet.set_attn_processor({name: scaled(own) for name, own in pipeline.unet.attn_processors.items()})
    theirs = by_diffusers(pipeline, CUSTOM_DIFFUSION_PROMPTS)
    assert apart(ours, base).mean() > 1
    # The loaded processor multiplies out what torch's fused attention does at once.
    assert apart(ours, theirs).max() <= 2


def scaled(loaded: torch.nn.Module) -> torch.nn.Module:
    """Return the same processor with torch's scaled dot-product attention."""
    own = CustomDiffusionAttnProcessor2_0(
        loaded.train_kv, loaded.train_q_out, loaded.hidden_size, loaded.cross_attention_dim
    )
    own.load_state_dict(loaded.state_dict())
    return own
