"""What a study wants trained: one order an adapter, and whether a folder already holds it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raymap.adapters.card import CARD, adapter_digest, adapter_files, read_card
from raymap.base.skeleton import Skeleton, word_id
from raymap.errors import InputError
from raymap.personalize.references.provenance import stated_terms
from raymap.plan.blocks import AdapterInfo
from raymap.study.model import Study, Subject
from raymap.study.recipes import (
    KEYS_AND_VALUES,
    CustomDiffusionRecipe,
    InversionRecipe,
    LoraRecipe,
    Method,
    Recipe,
    is_target,
)

CONTROL = "identity"
PLAIN_WORD = "object"
SAMPLES = 4
"""Pictures that every trained adapter draws for its own caption, with the default sampler."""
OBJECT_TEMPLATES = (
    "a photo of {}", "a picture of {}", "a clear photo of {}", "a photo of one {}", "a close photo of {}",
    "a bright photo of {}", "a dark photo of {}", "a photo of the {}", "a plain picture of {}", "{} in a photo",
)  # fmt: skip
STYLE_TEMPLATES = (
    "a painting in the style of {}", "a picture in the style of {}", "a drawing in the style of {}",
    "a scene in the style of {}", "an artwork in the style of {}", "a print in the style of {}",
)  # fmt: skip


@dataclass(frozen=True)
class AdapterOrder:
    """An adapter that a study wants trained by a method; `subject` is None for the method's null adapter."""

    name: str
    trained_by: Method
    recipe: Recipe
    base_sha256: str
    subject: Subject | None = None
    reference_sha256: tuple[tuple[str, str], ...] = ()

    @property
    def method(self) -> str:
        """The method as scores and maps name it: null adapters are controls."""
        return self.trained_by if self.subject else CONTROL

    @property
    def steps(self) -> int:
        """Optimizer steps the order takes."""
        return self.recipe.steps if self.subject else 0

    @property
    def class_word(self) -> str:
        return self.subject.class_word if self.subject else PLAIN_WORD

    @property
    def phrase(self) -> str:
        """What calls the subject in a prompt: its trigger, with the class word where the method trains so."""
        trigger = getattr(self.recipe, "trigger", "")
        if isinstance(self.recipe, InversionRecipe):
            return trigger.replace("{subject}", self.subject.name if self.subject else CONTROL)
        return f"{trigger} {self.class_word}"

    @property
    def triggers(self) -> tuple[str, ...] | None:
        """As `Adapter.triggers` of what will be trained."""
        unmoved = isinstance(self.recipe, InversionRecipe) and (self.recipe.restore_rows or self.subject is None)
        return (self.phrase,) if unmoved else None

    @property
    def caption(self) -> str:
        """The caption the references are trained under (Textual Inversion: the first of its templates)."""
        if isinstance(self.recipe, InversionRecipe):
            return self.templates[0].replace("{}", self.phrase)
        if self.subject and self.subject.instance_prompt:
            return self.subject.instance_prompt.replace("{}", self.phrase)
        return f"photo of a {self.phrase}" if self.trained_by == "custom_diffusion" else f"a photo of {self.phrase}"

    @property
    def templates(self) -> tuple[str, ...]:
        """Textual Inversion's captions, by the subject's category unless the recipe gives its own."""
        given = self.recipe.templates if isinstance(self.recipe, InversionRecipe) else None
        style = self.subject is not None and self.subject.category == "style"
        return given or (STYLE_TEMPLATES if style else OBJECT_TEMPLATES)

    @property
    def initializer(self) -> str:
        """The word whose row a learned token starts from."""
        return getattr(self.recipe, "initializer", None) or self.class_word.split()[-1]

    @property
    def class_prompt(self) -> str:
        """The prompt of the pictures that the base draws for prior preservation."""
        return self.class_word if self.trained_by == "custom_diffusion" else f"a photo of {self.class_word}"

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the weights."""
        asked = {
            "method": self.trained_by,
            "recipe": self.recipe.model_dump(),
            "caption": self.caption if self.subject else None,
            "templates": self.templates if self.trained_by == "textual_inversion" else None,
            "class": [self.class_prompt, self.initializer],
            "references": self.reference_sha256,
            "base": self.base_sha256,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def check(self, skeleton: Skeleton) -> None:
        """Check that the base has what the order needs: LoRA's targets; a one-token initializer, a trigger that is new.

        Raises:
            InputError: naming the subject, the word or target, and what to give instead.
        """
        where = f"methods.{self.trained_by}"
        trigger = self.phrase if isinstance(self.recipe, InversionRecipe) else getattr(self.recipe, "trigger", "")
        if trigger not in self.caption:
            problem = f"{self.caption!r} does not hold {trigger!r}, by which {where} calls the subject"
            remedy = f"write {{}} where a method's trigger and class word belong, or give `{where}.trigger`"
            raise InputError(f"instance_prompt of {self.subject.name if self.subject else self.name}", problem, remedy)
        if isinstance(self.recipe, LoraRecipe):
            linear = [n.removesuffix(".weight") for n, shape in skeleton.shapes.items() if len(shape) == 2]
            for target in self.recipe.targets:
                if not any(is_target(name, (target,)) for name in linear if name.startswith("unet.")):
                    problem = f"the target {target!r} is no linear layer of the base's denoiser"
                    raise InputError(where, problem, "give ends of layer names, as `targets: [to_q, to_v]`")
            return
        if word_id(skeleton.tokenizer, self.initializer) is None:
            problem = f"the initializer {self.initializer!r} of {self.name} is not one token of the base"
            raise InputError(where, problem, "give `initializer:` a word that is one")
        name = trigger.split()[0] if self.trained_by == "custom_diffusion" else trigger
        if name in skeleton.vocabulary:
            problem = f"the trigger {name!r} is an ordinary token of the base"
            raise InputError(where, problem, "give another `trigger:`, say in angle brackets")

    def touched(self, skeleton: Skeleton) -> frozenset[str]:
        """Return the names of the weights that the trained adapter will update (`unet.….weight`)."""
        linear = [name for name, shape in skeleton.shapes.items() if name.startswith("unet.") and len(shape) == 2]
        if isinstance(self.recipe, LoraRecipe):
            targets = self.recipe.targets
        else:
            targets = KEYS_AND_VALUES if isinstance(self.recipe, CustomDiffusionRecipe) else ()
        return frozenset(name for name in linear if is_target(name.removesuffix(".weight"), targets))

    def size(self, skeleton: Skeleton) -> int:
        """Return the bytes of the weights that the trained adapter holds in float32, without those of its token."""
        shapes = [skeleton.shapes[name] for name in self.touched(skeleton)]
        if isinstance(self.recipe, LoraRecipe):
            return 4 * self.recipe.rank * sum(sum(shape) for shape in shapes)
        return 4 * sum(math.prod(shape) for shape in shapes)

    def card(self, folder: Path, losses: list[tuple[int, float]]) -> dict[str, Any]:
        """Return what adapter.json holds."""
        files = adapter_files(folder)
        return {
            "name": self.name,
            "method": self.method,
            "trained_by": self.trained_by,
            "subject": self.subject.name if self.subject else CONTROL,
            "subject_category": self.subject.category if self.subject else "control",
            "class_word": self.subject.class_word if self.subject else None,
            "phrase": self.phrase if self.subject else None,
            "instance_prompt": self.caption if self.subject else None,
            "base_sha256": self.base_sha256,
            "sha256": adapter_digest(files),
            "files": [path.name for path in files],
            "training_digest": self.digest,
            "recipe": self.recipe.model_dump(),
            "references": dict(self.reference_sha256),
            **stated_terms(self.subject.references if self.subject else ()),
            "losses": losses,
        }


def orders(study: Study, base_sha256: str, references: dict[str, dict[str, str]]) -> tuple[AdapterOrder, ...]:
    """Return the adapters a study wants trained: every subject by every method, then each method's null adapter.

    Args:
        references: subject name -> file name -> SHA-256, as `check_references` returns them.
    """
    recipes = study.methods.recipes
    wanted = [
        AdapterOrder(
            f"{subject.name}-{method}", method, recipe, base_sha256, subject, tuple(references[subject.name].items())
        )
        for subject in study.subjects
        for method, recipe in recipes.items()
    ]
    if study.identity_control:
        nulls: dict[Method, Recipe] = dict(recipes) if study.subjects else {}
        if study.adapters and not nulls.keys() & {"lora", "custom_diffusion"}:
            nulls["lora"] = LoraRecipe()  # what is brought along may update weights, and one control has to
        wanted += [AdapterOrder(f"{CONTROL}-{m}", m, recipe, base_sha256) for m, recipe in nulls.items()]
    return tuple(wanted)


def together(orders: Sequence[AdapterOrder], subjects: int) -> tuple[tuple[AdapterOrder, ...], ...]:
    """Return the orders in groups that are trained in one batch: up to `subjects` of one method, null adapters alone.

    Groups follow from the study alone, so that a training that is resumed ends with the same bits.
    """
    groups: list[tuple[AdapterOrder, ...]] = []
    for method in dict.fromkeys(order.trained_by for order in orders):
        own = [order for order in orders if order.trained_by == method and order.subject]
        groups += [tuple(own[k : k + subjects]) for k in range(0, len(own), subjects)]
    return (*groups, *((order,) for order in orders if not order.subject))


def is_trained(folder: Path, order: AdapterOrder) -> bool:
    """Return whether the folder already holds what the order asks for.

    Raises:
        InputError: when it holds an adapter of that name, differently trained.
    """
    if not (folder / CARD).exists():
        return False
    _, card = read_card(folder, order.base_sha256)
    if card.get("training_digest") != order.digest:
        raise InputError(str(folder), "was trained with other settings", "delete it or give another --output")
    return True


def info_of(order: AdapterOrder, folder: Path) -> AdapterInfo:
    """Return a trained order as a run knows it.

    The subject's category, which decides over target prompts and over no weight, is the study's, not the card's.
    """
    info, _ = read_card(folder, order.base_sha256)
    return replace(info, subject_category=order.subject.category) if order.subject else info
