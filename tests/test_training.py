"""Personalization teaches the subject: with the trigger in the prompt, the adapted model draws it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from raymap.adapters.folder import load_adapter, write_card
from raymap.adapters.inversion import ROWS_FILE, ROWS_KEY
from raymap.adapters.skeleton import skeleton_of
from raymap.adapters.store import AdapterStore
from raymap.diffusion.base import load
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.embedded.subjects import STAR_CUP
from raymap.errors import InputError
from raymap.personalize.orders import AdapterOrder, orders
from raymap.personalize.references import read_reference
from raymap.personalize.tokens import LearnedTokens
from raymap.personalize.views import rescaled
from raymap.recipes import CustomDiffusionRecipe, InversionRecipe, LoraRecipe, Method, Recipe
from raymap.scoring.clip import ClipScorer
from raymap.study import SamplerSettings, build_study

METHODS: tuple[Method, ...] = ("textual_inversion", "lora", "custom_diffusion")
SHORT: dict[Method, Recipe] = {
    "textual_inversion": InversionRecipe(steps=3, batch_size=2, learning_rate=1e-2, vectors=2),
    "lora": LoraRecipe(steps=3, batch_size=2, learning_rate=1e-3, prior_weight=1.0, class_images=2),
    "custom_diffusion": CustomDiffusionRecipe(steps=3, batch_size=2, learning_rate=1e-3, class_images=2),
}


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.set_num_threads(2)
    return load(PIPELINE)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterOrder]:
    """The orders of a study that trains the star cup by every method's embedded preset, by name."""
    folder = tmp_path_factory.mktemp("references")
    raw = {
        "name": "s",
        "seeds": 2,
        "prompts": {"scenes": ["a city at night"]},
        "methods": {m: f"embedded-{m}" for m in METHODS},
        "subjects": [
            {
                "name": "star-cup",
                "category": "object",
                "class_word": "cup",
                "references": [str(p) for p in STAR_CUP.write_references(folder, n=5)],
            }
        ],
    }
    return {o.name: o for o in orders(build_study(raw, "test", folder), "0" * 64, {"star-cup": {}})}


def references(order: AdapterOrder) -> np.ndarray | None:
    return None if order.subject is None else np.stack([read_reference(p, 64) for p in order.subject.references])


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
    for _ in order.train(pipeline, references(order), tmp_path):
        pass
    write_card(tmp_path, order.card(tmp_path, []))
    adapted = load(PIPELINE)
    store = AdapterStore(adapted)
    store.add("cup", load_adapter(tmp_path, skeleton_of(PIPELINE)))
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
    method: Method, wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    given = wanted[f"star-cup-{method}"]
    order = AdapterOrder(given.name, method, SHORT[method], given.base_sha256, given.subject)
    before = weights_digest(pipeline)
    for k in range(2):
        list(order.train(pipeline, references(order), tmp_path / str(k)))
    assert weights_digest(pipeline) == before
    files = [sorted((p.name, p.read_bytes()) for p in (tmp_path / str(k)).iterdir()) for k in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize("method", METHODS)
def test_each_null_adapter_leaves_every_pixel(
    method: Method, wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    order = wanted[f"identity-{method}"]
    assert order.method == "identity"
    assert not list(order.train(pipeline, None, tmp_path))
    write_card(tmp_path, order.card(tmp_path, []))
    adapted = load(PIPELINE)
    store = AdapterStore(adapted)
    store.add("null", load_adapter(tmp_path, skeleton_of(PIPELINE)))
    encoder, prompts = PromptEncoder(adapted, store), ["a red car on a street", "a city at night"]
    pixels = []
    for name in (None, "null"):
        store.swap(name)
        pixels.append(draw(adapted, encoder, prompts, (0, 1), SamplerSettings(steps=3), 2))
    assert np.array_equal(pixels[0], pixels[1])
    assert encoder.unchanged(prompts, "null") == [method == "textual_inversion"] * 2


def test_unrestored_rows_drift_as_adamw_lets_rows_without_a_gradient_drift(
    wanted: dict[str, AdapterOrder], pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    given = wanted["star-cup-textual_inversion"]
    recipe = InversionRecipe(steps=5, batch_size=1, learning_rate=1e-2, weight_decay=0.5, restore_rows=False)
    order = AdapterOrder(given.name, "textual_inversion", recipe, given.base_sha256, given.subject)
    list(order.train(pipeline, references(order), tmp_path))
    rows = torch.nn.Parameter(pipeline.text_encoder.get_input_embeddings().weight.detach().clone())
    optimizer = torch.optim.AdamW([rows], lr=1e-2, weight_decay=0.5)
    for _ in range(5):
        rows.grad = torch.zeros_like(rows)
        optimizer.step()
    assert torch.equal(load_file(tmp_path / ROWS_FILE)[ROWS_KEY], rows.detach())


def test_a_learned_token_is_encoded_as_if_it_were_a_row_of_the_embedding(pipeline: StableDiffusionPipeline) -> None:
    tokens = LearnedTokens(pipeline, "<cup>", 3, "cup")
    with torch.no_grad():
        tokens.vectors.add_(torch.randn(3, 96, generator=torch.Generator().manual_seed(0)))
    reference = load(PIPELINE)
    reference.load_textual_inversion({"<cup>": tokens.token.vectors})
    for caption in ("a photo of <cup>", "a photo of a cup"):
        theirs, _ = reference.encode_prompt(caption, "cpu", 1, False)
        assert torch.equal(tokens.encode([caption]), theirs), caption


def test_rescaled_views_mask_what_is_padded() -> None:
    images = np.full((2, 64, 64, 3), 200, dtype=np.uint8)
    pictures, captions, masks = rescaled(images, "photo of a <new1> cup", 0, 4)
    assert pictures.shape == (64, 64, 64, 3)
    assert masks.shape == (64, 16, 16)
    shrunk = [k for k in range(64) if (pictures[k] == 127).any()]
    assert 30 < len(shrunk) < 55
    for k in shrunk:
        inside = np.kron(masks[k], np.ones((4, 4))).astype(bool)
        assert masks[k].all() or (pictures[k][inside] == 200).all()
    for k in range(64):
        far, near = ("far away" in captions[k][0]), ("zoomed in" in captions[k][0])
        share = (pictures[k] == 200).mean()
        assert far == (share < 0.59**2)
        assert not near or share == 1


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (InversionRecipe(initializer="teapotlike"), ("initializer", "teapotlike", "one token")),
        (InversionRecipe(trigger="cat"), ("trigger", "cat", "ordinary")),
        (CustomDiffusionRecipe(initializer="qzxqzx"), ("initializer", "qzxqzx")),
    ],
)
def test_words_that_the_base_lacks_or_has_are_refused(
    recipe: Recipe, words: tuple[str, ...], wanted: dict[str, AdapterOrder]
) -> None:
    subject = wanted["star-cup-lora"].subject
    method: Method = "custom_diffusion" if isinstance(recipe, CustomDiffusionRecipe) else "textual_inversion"
    with pytest.raises(InputError) as refused:
        AdapterOrder("star-cup", method, recipe, "0" * 64, subject).check(skeleton_of(PIPELINE))
    assert all(word in str(refused.value) for word in words)
