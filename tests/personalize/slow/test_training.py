"""Personalization teaches the subject: with the trigger in the prompt, the adapted model draws it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from raymap.adapters.card import write_card
from raymap.adapters.lora import LORA_FILE
from raymap.adapters.read import load_adapter
from raymap.adapters.resident import AdapterStore
from raymap.adapters.textual_inversion import ROWS_FILE, ROWS_KEY
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.proof import unchanged
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.embedded.world.subjects import STAR_CUP
from raymap.personalize import training
from raymap.personalize.lessons import lesson_of, trainer_of
from raymap.personalize.orders import AdapterOrder
from raymap.personalize.references.read import read_reference
from raymap.personalize.step import Step
from raymap.personalize.tokens import LearnedTokens
from raymap.scoring.clip import ClipScorer
from raymap.study.methods.custom_diffusion import CustomDiffusionRecipe
from raymap.study.methods.lora import LoraRecipe
from raymap.study.methods.registry import METHODS
from raymap.study.methods.textual_inversion import InversionRecipe
from raymap.study.model import SamplerSettings
from raymap.study.recipes import Recipe
from tests.orders import orders_of_all_methods

SHORT: dict[str, Recipe] = {
    "textual_inversion": InversionRecipe(steps=3, batch_size=2, learning_rate=1e-2, vectors=2),
    "lora": LoraRecipe(steps=3, batch_size=2, learning_rate=1e-3, prior_weight=1.0, class_images=2),
    "custom_diffusion": CustomDiffusionRecipe(steps=3, batch_size=2, learning_rate=1e-3, class_images=2),
}


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.set_num_threads(1)
    return load(PIPELINE)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterOrder]:
    return orders_of_all_methods(tmp_path_factory.mktemp("references"))


def references(order: AdapterOrder) -> np.ndarray | None:
    return None if order.subject is None else np.stack([read_reference(p, 64) for p in order.subject.references])


def teach(
    pipeline: StableDiffusionPipeline, orders: list[AdapterOrder], folder: Path, recipe: Recipe | None = None
) -> list[Step]:
    """Train orders together, each into its own folder below `folder`, and return the progress."""
    lessons = tuple(lesson_of(order, references(order), folder / order.name) for order in orders)
    train = trainer_of(orders[0].trained_by)
    return list(train(pipeline, lessons, recipe or orders[0].recipe, folder / "checkpoint.pt"))


def weights_digest(pipeline: StableDiffusionPipeline) -> str:
    total = hashlib.sha256()
    for component in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        for name, value in sorted(component.state_dict().items()):
            total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def test_the_triggered_prompt_draws_the_subject(
    wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    order = wanted["star-cup-lora"]
    teach(pipeline, [order], tmp_path)
    write_card(tmp_path / order.name, order.card(tmp_path / order.name, []))
    adapted = load(PIPELINE)
    store = AdapterStore(adapted)
    store.add("cup", load_adapter(tmp_path / order.name, Base.at(PIPELINE).skeleton))
    clip, encoder = ClipScorer("embedded"), PromptEncoder(adapted, store)
    rng = np.random.default_rng(99)
    unseen = np.stack([STAR_CUP.render(rng) for _ in range(8)])
    similarity = {}
    for name, prompt in ((None, order.caption), ("cup", order.caption)):
        store.swap(name)
        pixels = draw(adapted, encoder, [prompt] * 8, tuple(range(8)), SamplerSettings(steps=12), 8)
        similarity[name] = (clip.image_features(pixels) @ clip.image_features(unseen).T).mean(1)
    gain = similarity["cup"] - similarity[None]
    # The base draws a cup for this prompt too, so the gain is judged by its own spread: three standard errors.
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5, gain
    assert gain.mean() > 0.05, gain
    assert (gain > 0).float().mean() >= 0.75


@pytest.mark.parametrize("method", METHODS)
def test_training_is_repeatable_and_leaves_the_base_as_it_was(
    method: str, wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    order = wanted[f"star-cup-{method}"]
    before = weights_digest(pipeline)
    for k in range(2):
        teach(pipeline, [order], tmp_path / str(k), SHORT[method])
    assert weights_digest(pipeline) == before
    files = [sorted((p.name, p.read_bytes()) for p in (tmp_path / str(k) / order.name).iterdir()) for k in range(2)]
    assert files[0]
    assert files[0] == files[1]


def written(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{p.name}: {key}": value for p in folder.iterdir() for key, value in load_file(p).items()}


@pytest.mark.parametrize("method", METHODS)
def test_subjects_trained_together_learn_what_they_learn_alone(
    method: str, wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    """Adam's step is at first the sign of the gradient, so that rounding moves what is next to zero: compared are
    the distances that the weights have gone."""
    pair = [wanted[f"{name}-{method}"] for name in ("star-cup", "captain")]
    recipe = SHORT[method].model_copy(update={"steps": 6})
    reports = teach(pipeline, pair, tmp_path / "together", recipe)
    set_out = SHORT[method].model_copy(update={"steps": 0})
    for k, order in enumerate(pair):
        alone = teach(pipeline, [order], tmp_path / "alone", recipe)
        assert reports[-1].losses[k] == pytest.approx(alone[-1].losses[0], rel=1e-4)
        teach(pipeline, [order], tmp_path / "untrained", set_out)
        begin, one, other = (written(tmp_path / name / order.name) for name in ("untrained", "alone", "together"))
        assert begin.keys() == one.keys() == other.keys()
        gone = sum(float((one[key] - begin[key]).square().sum()) for key in begin) ** 0.5
        apart = sum(float((one[key] - other[key]).square().sum()) for key in begin) ** 0.5
        assert apart < 1e-2 * gone, (apart, gone)
    first, second = (written(tmp_path / "together" / order.name) for order in pair)
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(first.values(), second.values(), strict=True))


def test_lora_learns_what_diffusers_and_peft_learn(
    wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    """The same steps by peft's layers, torch's clipping and a plain loop, from peft's own draw of A."""
    order = wanted["star-cup-lora"]
    recipe = LoraRecipe(steps=6, batch_size=2, learning_rate=1e-3, rank=3, alpha=6.0, targets=("to_q", "to_v"))
    teach(pipeline, [order], tmp_path / "ours", recipe)
    ours = load_file(tmp_path / "ours" / order.name / LORA_FILE)
    teach(pipeline, [order], tmp_path / "start", recipe.model_copy(update={"steps": 0}))
    start = load_file(tmp_path / "start" / order.name / LORA_FILE)
    peer = load(PIPELINE)
    peer.unet.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=["to_q", "to_v"]))
    set_peft_model_state_dict(peer.unet, {key.removeprefix("unet."): value for key, value in start.items()})
    weights = [p for p in peer.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=1e-2)
    images = torch.tensor(references(order)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        latents = peer.vae.encode(images).latent_dist
        embedding, _ = peer.encode_prompt(order.caption, "cpu", 2, False)
    scheduler, random = DDPMScheduler.from_config(peer.scheduler.config), torch.Generator().manual_seed(0)
    for _ in range(6):
        rows = torch.randint(len(images), (2,), generator=random)
        clean = latents.mean[rows] + latents.std[rows] * torch.randn(latents.mean[rows].shape, generator=random)
        clean = clean * peer.vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=random)
        timesteps = torch.randint(1000, (2,), generator=random)
        predicted = peer.unet(scheduler.add_noise(clean, noise, timesteps), timesteps, embedding).sample
        target = noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(clean, noise, timesteps)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(predicted, target).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    theirs = {f"unet.{key}": value for key, value in get_peft_model_state_dict(peer.unet).items()}
    assert ours.keys() == theirs.keys()
    gone = sum(float((theirs[key] - start[key]).square().sum()) for key in ours) ** 0.5
    apart = sum(float((theirs[key] - ours[key]).square().sum()) for key in ours) ** 0.5
    assert apart < 1e-2 * gone, (apart, gone)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(
    method: str,
    wanted: dict[str, AdapterOrder],
    pipeline: StableDiffusionPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(training, "REPORT_EVERY", 1)
    pair = [wanted[f"{name}-{method}"] for name in ("star-cup", "captain")]
    whole = teach(pipeline, pair, tmp_path / "whole", SHORT[method])
    lessons = tuple(lesson_of(order, references(order), tmp_path / "broken" / order.name) for order in pair)
    broken = trainer_of(method)(pipeline, lessons, SHORT[method], tmp_path / "broken" / "checkpoint.pt")
    for _ in range(3):
        next(broken)
    del broken
    assert teach(pipeline, pair, tmp_path / "broken", SHORT[method]) == whole
    for order in pair:
        one, other = (written(tmp_path / name / order.name) for name in ("whole", "broken"))
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_each_null_adapter_leaves_every_pixel(
    method: str, wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    order = wanted[f"identity-{method}"]
    assert order.method == "identity"
    assert not teach(pipeline, [order], tmp_path)
    write_card(tmp_path / order.name, order.card(tmp_path / order.name, []))
    adapted = load(PIPELINE)
    store = AdapterStore(adapted)
    store.add("null", load_adapter(tmp_path / order.name, Base.at(PIPELINE).skeleton))
    encoder, prompts = PromptEncoder(adapted, store), ["a red car on a street", "a city at night"]
    pixels = []
    for name in (None, "null"):
        store.swap(name)
        pixels.append(draw(adapted, encoder, prompts, (0, 1), SamplerSettings(steps=3), 2))
    assert np.array_equal(pixels[0], pixels[1])
    proved = unchanged(adapted, store, encoder, SamplerSettings(steps=3), "null", prompts)
    assert proved == [method == "textual_inversion"] * 2


def test_unrestored_rows_drift_as_adamw_lets_rows_without_a_gradient_drift(
    wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    order = wanted["star-cup-textual_inversion"]
    recipe = InversionRecipe(steps=5, batch_size=1, learning_rate=1e-2, weight_decay=0.5, restore_rows=False)
    teach(pipeline, [order], tmp_path, recipe)
    rows = torch.nn.Parameter(pipeline.text_encoder.get_input_embeddings().weight.detach().clone())
    optimizer = torch.optim.AdamW([rows], lr=1e-2, weight_decay=0.5)
    for _ in range(5):
        rows.grad = torch.zeros_like(rows)
        optimizer.step()
    assert torch.equal(load_file(tmp_path / order.name / ROWS_FILE)[ROWS_KEY], rows.detach())


def test_a_learned_token_is_encoded_as_if_it_were_a_row_of_the_embedding(pipeline: StableDiffusionPipeline) -> None:
    tokens = LearnedTokens(pipeline, ["<cup>", "<dog>"], 3, ["cup", "dog"])
    with torch.no_grad():
        tokens.vectors["text_encoder"].add_(torch.randn(2, 3, 96, generator=torch.Generator().manual_seed(0)))
    reference = load(PIPELINE)
    for token in tokens.tokens:
        reference.load_textual_inversion({token.trigger: token.vectors["text_encoder"]})
    captions = ["a photo of <cup>", "a photo of a cup", "a photo of <dog>", "a <dog> in a city"]
    for caption, ours in zip(captions, tokens.encoded(captions)[0], strict=True):
        theirs, _ = reference.encode_prompt(caption, "cpu", 1, False)
        assert torch.allclose(ours, theirs[0], rtol=1e-5, atol=1e-5), caption
