"""Training on SD, SDXL, SD 3 and FLUX.1: small pipelines of the real classes learn, and a run reads what they wrote."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from raymap.adapters.lora import LORA_FILE
from raymap.adapters.read import read_adapter
from raymap.adapters.resident import AdapterStore, weights_of
from raymap.base.families.registry import family_of
from raymap.base.model import Base
from raymap.base.pipeline import denoiser_of, load
from raymap.base.settings import OWN
from raymap.base.shapes import INDEX
from raymap.drawing.prompts import PromptEncoder, flat
from raymap.drawing.proof import unchanged
from raymap.drawing.sampling import call_of, draw
from raymap.personalize import training
from raymap.personalize.layers import low_rank
from raymap.personalize.lessons import Lesson, Lessons, trainer_of, views_of
from raymap.personalize.objectives.objective import objective_of
from raymap.personalize.orders import AdapterOrder
from raymap.personalize.step import Step
from raymap.personalize.tokens import LearnedTokens
from raymap.study.methods.custom_diffusion import CustomDiffusionRecipe
from raymap.study.methods.lora import LORA, LoraRecipe
from raymap.study.methods.registry import METHODS
from raymap.study.methods.textual_inversion import InversionRecipe
from raymap.study.model import SamplerSettings
from raymap.study.recipes import Recipe
from raymap.study.subject import Subject
from tests.pipelines import save_tiny

WITHOUT_T5 = "stable_diffusion_3_without_t5"
FAMILIES = ("stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", WITHOUT_T5, "flux")
TRIGGERS = {"lora": "sks", "textual_inversion": "<cup>", "custom_diffusion": "<cup>"}
RECIPES: dict[str, Recipe] = {
    "textual_inversion": InversionRecipe(steps=4, batch_size=2, learning_rate=1e-2, vectors=2),
    "lora": LoraRecipe(steps=4, batch_size=2, learning_rate=1e-3, alpha=2.0, prior_weight=1.0, class_images=2),
    "custom_diffusion": CustomDiffusionRecipe(steps=4, batch_size=2, learning_rate=1e-3, class_images=2),
}
LONGER: dict[str, Recipe] = {
    "textual_inversion": InversionRecipe(steps=40, batch_size=8, learning_rate=5e-2, vectors=2),
    "lora": LoraRecipe(steps=40, batch_size=8, learning_rate=5e-3),
    "custom_diffusion": CustomDiffusionRecipe(
        steps=40, batch_size=8, learning_rate=5e-3, prior_weight=None, augment=False
    ),
}
SAMPLER = SamplerSettings(steps=2, guidance_scale=3.0)
CAPTIONS = ["a photo of <cup> cup", "a photo of a cup"]


@dataclass(frozen=True)
class Tiny:
    """A small pipeline with its base."""

    name: str
    base: Base
    pipeline: DiffusionPipeline

    def lesson(self, folder: Path, method: str, seed: int = 0) -> Lesson:
        height, width = self.base.size
        images = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        trigger = TRIGGERS[method]
        return Lesson(images, trigger, (f"a photo of {trigger} cup",), "a photo of a cup", "cup", folder)

    def again(self) -> DiffusionPipeline:
        return load(self.base.folder)


def saved(name: str, folder: Path) -> Path:
    """Write a small pipeline; SD 3 also as one without its largest encoder, which most people leave out."""
    if name != WITHOUT_T5:
        return save_tiny(name, folder)
    save_tiny("stable_diffusion_3", folder)
    index = json.loads((folder / INDEX).read_text())
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
        index[part] = [None, None]
    (folder / INDEX).write_text(json.dumps(index))
    (folder / OWN).write_text(json.dumps({"call": {"max_sequence_length": 1}}))
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    torch.set_num_threads(1)
    folder = saved(request.param, tmp_path_factory.mktemp("bases") / request.param)
    return Tiny(request.param, Base.at(folder), load(folder))


def teach(tiny: Tiny, lessons: Lessons, method: str, recipe: Recipe | None = None) -> list[Step]:
    checkpoint = lessons[0].folder.parent / "checkpoint.pt"
    return list(trainer_of(method)(tiny.pipeline, lessons, recipe or RECIPES[method], checkpoint))


def written(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{p.name}: {key}": value for p in folder.iterdir() for key, value in load_file(p).items()}


@torch.no_grad()
def drawn(pipeline: DiffusionPipeline, prompt: str) -> torch.Tensor:
    images: torch.Tensor = pipeline(**call_of(pipeline, [prompt], (0,), SAMPLER))[0]
    return images


def adapted(tiny: Tiny, folder: Path, method: str) -> tuple[DiffusionPipeline, AdapterStore]:
    """Return a pipeline with the adapter of a folder in force, as a run reads it."""
    pipeline = tiny.again()
    store = AdapterStore(pipeline)
    store.add("trained", read_adapter(folder, tiny.base.skeleton, method=method).adapter)
    store.swap("trained")
    return pipeline, store


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls_under_the_adapter_that_a_run_reads(tiny: Tiny, method: str, tmp_path: Path) -> None:
    lesson = tiny.lesson(tmp_path / "one", method)
    before = {name: weight.clone() for name, weight in weights_of(tiny.pipeline).items()}
    teach(tiny, (lesson,), method, LONGER[method])
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(tiny.pipeline).items())
    pipeline, store = adapted(tiny, lesson.folder, method)
    objective, encoder, losses = objective_of(pipeline), PromptEncoder(pipeline, store), []
    views = views_of(tiny.pipeline, (lesson,))[0]
    for name in (None, "trained"):
        store.swap(name)
        random = torch.Generator().manual_seed(7)
        clean = views.sample(torch.arange(64) % len(views.mean), random)
        noise, times = torch.randn(clean.shape, generator=random), objective.times(64, random)
        with torch.no_grad():
            predicted, target = objective.predict(clean, noise, times, encoder.texts(lesson.captions * 64))
        losses.append(float((predicted - target).square().mean()))
    assert losses[1] < 0.999 * losses[0], losses


@pytest.mark.parametrize("method", METHODS)
def test_each_null_adapter_leaves_every_pixel(tiny: Tiny, method: str, tmp_path: Path) -> None:
    lesson = Lesson(None, TRIGGERS[method], ("a photo",), "", "cup", tmp_path / "null")
    assert not teach(tiny, (lesson,), method)
    pipeline, store = adapted(tiny, lesson.folder, method)
    encoder, prompts = PromptEncoder(pipeline, store), ["a red car on a street"] * 2
    pixels = []
    for name in (None, "trained"):
        store.swap(name)
        pixels.append(draw(pipeline, encoder, prompts, (0, 1), SAMPLER, 2))
    assert np.array_equal(pixels[0], pixels[1])
    assert unchanged(pipeline, store, encoder, SAMPLER, "trained", prompts) == [method == "textual_inversion"] * 2


@pytest.mark.parametrize("method", METHODS)
def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(
    tiny: Tiny, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(training, "REPORT_EVERY", 1)

    def pair(name: str) -> Lessons:
        return tuple(tiny.lesson(tmp_path / name / str(k), method, k) for k in range(2))

    whole = teach(tiny, pair("whole"), method)
    broken = trainer_of(method)(tiny.pipeline, pair("broken"), RECIPES[method], tmp_path / "broken" / "checkpoint.pt")
    for _ in range(3):
        next(broken)
    del broken
    assert teach(tiny, pair("broken"), method) == whole
    for k in range(2):
        one, other = (written(tmp_path / name / str(k)) for name in ("whole", "broken"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_subjects_trained_together_learn_what_they_learn_alone(tiny: Tiny, method: str, tmp_path: Path) -> None:
    together = tuple(tiny.lesson(tmp_path / "together" / str(k), method, k) for k in range(2))
    reports = teach(tiny, together, method)
    for k in range(2):
        alone = tiny.lesson(tmp_path / "alone" / str(k), method, k)
        assert reports[-1].losses[k] == pytest.approx(teach(tiny, (alone,), method)[-1].losses[0], rel=1e-4)
        one, other = written(alone.folder), written(together[k].folder)
        # Adam's step is at first the sign of the gradient, so that rounding moves what is next to zero.
        apart = sum(float((one[key] - other[key]).square().sum()) for key in one) ** 0.5
        assert apart < 1e-2 * sum(float(value.square().sum()) for value in one.values()) ** 0.5


def test_a_lora_draws_what_the_trained_layers_and_diffusers_draw(tiny: Tiny, tmp_path: Path) -> None:
    lesson, recipe = tiny.lesson(tmp_path / "lora", "lora"), LoraRecipe(steps=8, learning_rate=2e-2, alpha=8.0)
    teach(tiny, (lesson,), "lora", recipe)
    pipeline, _ = adapted(tiny, lesson.folder, "lora")
    prompt = lesson.captions[0]
    ours, base = drawn(pipeline, prompt), drawn(tiny.pipeline, prompt)
    assert not torch.allclose(ours, base, atol=1e-3)
    tensors = load_file(lesson.folder / LORA_FILE)
    targets, component = LORA.targets(recipe, family_of(pipeline)), tiny.base.parts.denoisers[0]
    with low_rank(denoiser_of(tiny.pipeline), targets, recipe.rank, 8.0, 1, 0) as weights:
        for name, weight in weights.items():
            weight.data[0] = tensors[f"{component}.{name}"]
        trained = drawn(tiny.pipeline, prompt)
    assert torch.allclose(ours, trained, atol=1e-5)
    peer = tiny.again()
    peer.load_lora_weights(lesson.folder)
    assert torch.allclose(ours, drawn(peer, prompt), atol=1e-5)


def test_an_order_foretells_the_weights_that_a_training_changes(tiny: Tiny, tmp_path: Path) -> None:
    subject = Subject(name="cup", category="object", class_word="cup", references=(tmp_path / "1.jpg",))
    for method in METHODS:
        order = AdapterOrder("cup", method, RECIPES[method], "0" * 64, subject)
        order.check(tiny.base.skeleton)
        lesson = tiny.lesson(tmp_path / method, method)
        teach(tiny, (lesson,), method)
        adapter = read_adapter(lesson.folder, tiny.base.skeleton, method=method).adapter
        assert adapter.updates.keys() == order.touched(tiny.base.skeleton)
        assert 4 * sum(update.size for update in adapter.updates.values()) == order.size(tiny.base.skeleton)


@pytest.mark.parametrize("method", ["textual_inversion", "custom_diffusion"])
def test_a_learned_token_is_read_in_every_text_encoder_as_it_was_trained(
    tiny: Tiny, method: str, tmp_path: Path
) -> None:
    lessons = tuple(tiny.lesson(tmp_path / str(k), method, k) for k in range(2))
    teach(tiny, lessons, method)
    learning = set(tiny.base.family.learning(tiny.base.parts.encoders))
    assert learning == set(tiny.base.parts.encoders)
    learned = LearnedTokens.of(tiny.pipeline, lessons, 2 if method == "textual_inversion" else 1)
    tokens = [read_adapter(x.folder, tiny.base.skeleton, method=method).adapter.tokens[0] for x in lessons]
    for encoder, vectors in learned.vectors.items():
        vectors.data.copy_(torch.stack([token.vectors[encoder] for token in tokens]))
    with torch.no_grad():
        trained = learned.encoded(CAPTIONS * 2)
    # Both subjects have the same trigger.
    for k, lesson in enumerate(lessons):
        pipeline, store = adapted(tiny, lesson.folder, method)
        read = PromptEncoder(pipeline, store).texts(CAPTIONS)
        for ours, theirs in zip(flat(trained), flat(read), strict=True):
            own = ours[2 * k : 2 * k + 2] if len(ours) == 4 else ours
            assert torch.allclose(own, theirs, atol=1e-5)
    assert not torch.equal(trained[0][0], trained[0][2])


def test_a_textual_inversion_is_encoded_as_diffusers_encodes_it(tiny: Tiny, tmp_path: Path) -> None:
    if not hasattr(tiny.pipeline, "load_textual_inversion"):
        pytest.skip("diffusers reads no Textual Inversion for this pipeline")
    lesson = tiny.lesson(tmp_path / "inversion", "textual_inversion")
    teach(tiny, (lesson,), "textual_inversion")
    pipeline, store = adapted(tiny, lesson.folder, "textual_inversion")
    tensors, peer = load_file(next(lesson.folder.iterdir())), tiny.again()
    for key, vectors in tensors.items():
        encoder = tiny.base.family.inversions.get(key, "text_encoder")
        tokenizer = getattr(peer, tiny.base.parts.tokenizers[encoder])
        peer.load_textual_inversion(vectors, token="<cup>", text_encoder=getattr(peer, encoder), tokenizer=tokenizer)
    ours, theirs = (PromptEncoder(p, s).texts(CAPTIONS) for p, s in ((pipeline, store), (peer, None)))
    base = PromptEncoder(tiny.again()).texts(CAPTIONS)
    for one, other in zip(flat(ours), flat(theirs), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.equal(ours[0][1], base[0][1])
    assert not torch.allclose(ours[0][0], base[0][0], atol=1e-3)


class AskedError(Exception):
    """The denoiser was called."""


def asked(pipeline: DiffusionPipeline, call: Any) -> dict[str, Any]:
    """Return what a call gives the denoiser the first time, by the names of its parameters."""
    denoiser, seen = denoiser_of(pipeline), {}

    def note(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.update(inspect.signature(type(denoiser).forward).bind(denoiser, *args, **kwargs).arguments)
        raise AskedError

    handle = denoiser.register_forward_pre_hook(note, with_kwargs=True)
    with pytest.raises(AskedError), torch.no_grad():
        call()
    handle.remove()
    given = {name: value for name, value in seen.items() if name not in ("self", "return_dict") and value is not None}
    return {name: value for name, value in given.items() if not (isinstance(value, dict) and not value)}


def test_the_denoiser_is_given_what_the_pipeline_gives_it_when_it_draws(tiny: Tiny) -> None:
    """At the first step without guidance: of the same noise, the same inputs, whatever a family's denoiser takes."""
    pipeline, family = tiny.pipeline, family_of(tiny.pipeline)
    unguided = SamplerSettings(steps=4, guidance_scale=family.scale if family.unguided is None else family.unguided)
    drawing = asked(pipeline, lambda: pipeline(**call_of(pipeline, ["a cup"], (3,), unguided)))
    objective, side = objective_of(pipeline), tiny.base.size[0] // pipeline.vae_scale_factor
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(3))
    flow = family.inversions and "transformer" in tiny.base.parts.denoisers
    time = torch.tensor([0 if flow else int(drawing["timestep"])])
    texts = PromptEncoder(pipeline).texts(["a cup"])
    ours = asked(pipeline, lambda: objective.predict(torch.zeros_like(noise), noise, time, texts))
    assert ours.keys() == drawing.keys()
    # A UNet's noisy latents are scaled by another rule in every sampler.
    for name in ours.keys() - ({"sample"} if not flow else set()):
        for one, other in zip(flat(leaves(ours[name])), flat(leaves(drawing[name])), strict=True):
            assert torch.allclose(one.float().flatten(), other.float().flatten(), atol=1e-5), name


def leaves(value: Any) -> Any:
    return tuple(value[key] for key in sorted(value)) if isinstance(value, dict) else value


def test_a_base_in_bfloat16_is_trained_in_mixed_precision(tiny: Tiny, tmp_path: Path) -> None:
    """As on a GPU, whose kernels are others: here the weights that are trained stay float32, and the loss is finite."""
    half = Tiny(tiny.name, tiny.base, load(tiny.base.folder, dtype=torch.bfloat16))
    for method in METHODS:
        lesson = tiny.lesson(tmp_path / method, method)
        losses = teach(half, (lesson,), method)[-1].losses
        assert np.isfinite(losses).all()
        tensors = written(lesson.folder).values()
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
        assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in tensors)
