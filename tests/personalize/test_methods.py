"""What a method's orders say and refuse, and the views that it shows of its references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raymap.adapters.card import write_card
from raymap.adapters.lora import LORA_FILE
from raymap.base.model import Base
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.personalize.orders import AdapterOrder, info_of, is_trained, together
from raymap.personalize.views import rescaled
from raymap.study.methods.custom_diffusion import CustomDiffusionRecipe
from raymap.study.methods.lora import LoraRecipe
from raymap.study.methods.registry import METHODS
from raymap.study.methods.textual_inversion import InversionRecipe
from raymap.study.recipes import Recipe
from tests.orders import orders_of_all_methods

SHORT: dict[str, Recipe] = {
    "textual_inversion": InversionRecipe(steps=3, batch_size=2, learning_rate=1e-2, vectors=2),
    "lora": LoraRecipe(steps=3, batch_size=2, learning_rate=1e-3, prior_weight=1.0, class_images=2),
    "custom_diffusion": CustomDiffusionRecipe(steps=3, batch_size=2, learning_rate=1e-3, class_images=2),
}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterOrder]:
    return orders_of_all_methods(tmp_path_factory.mktemp("references"))


def test_groups_hold_one_method_and_null_adapters_stay_alone(wanted: dict[str, AdapterOrder]) -> None:
    groups = together(tuple(wanted.values()), 8)
    assert [[o.name for o in g] for g in groups] == [
        *[[f"star-cup-{m}", f"captain-{m}"] for m in METHODS],
        *[[f"identity-{m}"] for m in METHODS],
    ]
    assert [len(g) for g in together(tuple(wanted.values()), 1)] == [1] * 9


def test_rescaled_views_mask_what_is_padded() -> None:
    images = np.full((2, 64, 64, 3), 200, dtype=np.uint8)
    views, captions, masks = rescaled(images, "photo of a <new1> cup", 0, 4)
    assert views.shape == (64, 64, 64, 3)
    assert masks.shape == (64, 16, 16)
    shrunk = [k for k in range(64) if (views[k] == 127).any()]
    assert 30 < len(shrunk) < 55
    for k in shrunk:
        inside = np.kron(masks[k], np.ones((4, 4))).astype(bool)
        assert masks[k].all() or (views[k][inside] == 200).all()
    for k in range(64):
        far, near = ("far away" in captions[k][0]), ("zoomed in" in captions[k][0])
        share = (views[k] == 200).mean()
        assert far == (share < 0.59**2)
        assert not near or share == 1


def test_a_trained_adapter_is_of_the_category_that_the_study_names(
    wanted: dict[str, AdapterOrder], tmp_path: Path
) -> None:
    order = wanted["star-cup-lora"]
    assert order.subject is not None
    (tmp_path / LORA_FILE).write_bytes(b"weights")
    write_card(tmp_path, order.card(tmp_path, []))
    corrected = replace(order, subject=order.subject.model_copy(update={"category": "face"}))
    assert is_trained(tmp_path, corrected)
    assert (info_of(order, tmp_path).subject_category, info_of(corrected, tmp_path).subject_category) == (
        "object",
        "face",
    )


def test_an_instance_prompt_holds_what_each_method_calls_its_subject(wanted: dict[str, AdapterOrder]) -> None:
    skeleton = Base.at(PIPELINE).skeleton

    def order(method: str, prompt: str) -> AdapterOrder:
        known = wanted[f"star-cup-{method}"]
        assert known.subject is not None
        return replace(known, subject=known.subject.model_copy(update={"instance_prompt": prompt}))

    captions = {}
    for method in METHODS:
        order(method, "a cosy picture of {}").check(skeleton)
        captions[method] = order(method, "a cosy picture of {}").caption
    assert captions["lora"] == "a cosy picture of sks cup"
    assert captions["custom_diffusion"] == "a cosy picture of <new1> cup"
    assert captions["textual_inversion"] == wanted["star-cup-textual_inversion"].caption
    order("lora", "a photo of sks mug").check(skeleton)
    for method, trigger in (("lora", "'sks'"), ("custom_diffusion", "'<new1>'")):
        with pytest.raises(InputError, match=f"instance_prompt of star-cup.*{trigger}"):
            order(method, "a photo of zwx cup").check(skeleton)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (InversionRecipe(initializer="teapotlike"), ("initializer", "teapotlike", "one token")),
        (InversionRecipe(trigger="cat"), ("trigger", "cat", "ordinary")),
        (CustomDiffusionRecipe(initializer="qzxqzx"), ("initializer", "qzxqzx")),
        (LoraRecipe(targets=("to_q", "to_qq")), ("target", "to_qq", "a layer")),
        (LoraRecipe(targets=("conv1",)), ("target", "conv1", "a layer")),
    ],
)
def test_words_and_layers_that_the_base_lacks_or_has_are_refused(
    recipe: Recipe, words: tuple[str, ...], wanted: dict[str, AdapterOrder]
) -> None:
    subject = wanted["star-cup-lora"].subject
    method = next(m for m, known in SHORT.items() if type(known) is type(recipe))
    with pytest.raises(InputError) as refused:
        AdapterOrder("star-cup", method, recipe, "0" * 64, subject).check(Base.at(PIPELINE).skeleton)
    assert all(word in str(refused.value) for word in words)
