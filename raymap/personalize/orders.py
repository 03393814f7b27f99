"""What a study wants trained: one order per adapter, and whether a folder already holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raymap.adapters.card import CARD, adapter_digest, adapter_files, read_card
from raymap.base.families.registry import trainable_families
from raymap.base.skeleton import Skeleton, word_id
from raymap.errors import InputError
from raymap.personalize.references.provenance import stated_terms
from raymap.study.adapter import AdapterInfo
from raymap.study.methods.lora import LORA
from raymap.study.methods.method import CONTROL, Method
from raymap.study.methods.registry import known_method
from raymap.study.model import Study
from raymap.study.recipes import Recipe
from raymap.study.subject import Subject

SAMPLES = 4
"""How many images each trained adapter draws for its own caption, with the default sampler."""


@dataclass(frozen=True)
class AdapterOrder:
    """An adapter that a study wants trained.

    `trained_by` is the name of the method that trains it by `recipe`. `subject` is None for the method's null adapter.
    `reference_sha256` pairs the names of the reference images with the SHA-256 of their files.
    """

    name: str
    trained_by: str
    recipe: Recipe
    base_sha256: str
    subject: Subject | None = None
    reference_sha256: tuple[tuple[str, str], ...] = ()

    @property
    def _trained_by(self) -> Method[Any]:
        return known_method(self.trained_by)

    @property
    def method(self) -> str:
        """The method as scores and maps name it: null adapters are controls."""
        return self.trained_by if self.subject else CONTROL

    @property
    def steps(self) -> int:
        """How many optimizer steps the training takes; a null adapter takes none."""
        return self.recipe.steps if self.subject else 0

    @property
    def trigger(self) -> str:
        """The word that calls the subject."""
        return self._trained_by.trigger(self.recipe, self.subject)

    @property
    def phrase(self) -> str:
        """What stands for the subject in a prompt: the trigger, with the class word if the method trains so."""
        return self._trained_by.phrase(self.recipe, self.subject)

    @property
    def triggers(self) -> tuple[str, ...] | None:
        """What `Adapter.triggers` of the trained adapter will be."""
        return (self.trigger,) if self._trained_by.proved(self.recipe, self.subject) else None

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions under which each reference image is shown, at random where there are several."""
        return self._trained_by.captions(self.recipe, self.subject)

    @property
    def caption(self) -> str:
        """The first of the captions: the prompt of the trained adapter's samples."""
        return self.captions[0]

    @property
    def initializer(self) -> str:
        """The word from whose embedding a learned token starts."""
        return self._trained_by.initializer(self.recipe, self.subject)

    @property
    def class_prompt(self) -> str:
        """The prompt of the class images that the base draws for prior preservation."""
        return self._trained_by.class_prompt(self.subject)

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the weights."""
        decides = {
            "method": self.trained_by,
            "recipe": self.recipe.model_dump(),
            "caption": self.caption if self.subject else None,
            "templates": self._trained_by.templates(self.recipe, self.subject),
            "class": [self.class_prompt, self.initializer],
            "references": self.reference_sha256,
            "base": self.base_sha256,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def check(self, skeleton: Skeleton) -> None:
        """Check that the captions hold the trigger, and that the base has what the method needs.

        Raises:
            InputError: the method cannot be trained on this kind of base; the trigger is not in the caption; a target
                is no layer that the method can train; of a method that learns a token, the initializer is not one token
                of the base, or the trigger is one or cannot name a file.
        """
        where = f"methods.{self.trained_by}"
        refusal = self._trained_by.refusal(self.recipe, skeleton.family) if self.subject else None
        if refusal is not None:
            remedy = f"train on one of {', '.join(trainable_families())}, or bring trained adapters along (`adapters:`)"
            raise InputError(where, refusal, remedy)
        if self.trigger not in self.caption:
            problem = f"{self.caption!r} does not hold {self.trigger!r}, by which {where} calls the subject"
            remedy = f"write {{}} where a method's trigger and class word belong, or give `{where}.trigger`"
            raise InputError(f"instance_prompt of {self.subject.name if self.subject else self.name}", problem, remedy)
        for target in self._trained_by.targets(self.recipe, skeleton.family):
            if not self._updates(skeleton, (target,)):
                problem = f"the target {target!r} is not a layer of the denoiser that {self.trained_by} can train"
                raise InputError(where, problem, "give ends of the names of such layers, as `targets: [to_q, to_v]`")
        if not self._trained_by.learns_token:
            return
        if skeleton.tokenizer is None:
            return  # an outline that lacks it; the run itself asks again
        if word_id(skeleton.tokenizer, self.initializer) is None:
            problem = f"the initializer {self.initializer!r} of {self.name} is not one token of the base"
            raise InputError(where, problem, "give a word that is, as `initializer:`")
        learning = skeleton.family.learning(skeleton.parts.encoders)
        if any(self.trigger in skeleton.vocabulary_of(encoder) for encoder in learning):
            problem = f"the trigger {self.trigger!r} is an ordinary token of the base"
            raise InputError(where, problem, "give another `trigger:`, for example in angle brackets")
        if skeleton.family.inversions and "/" in self.trigger:
            problem = f"the trigger {self.trigger!r} names the file of the token, and holds a slash"
            raise InputError(where, problem, "give another `trigger:`")

    def touched(self, skeleton: Skeleton) -> frozenset[str]:
        """Return the names of the weights that the trained adapter will update (`unet.….weight`, for example)."""
        return frozenset(self._updates(skeleton, self._trained_by.targets(self.recipe, skeleton.family)))

    def size(self, skeleton: Skeleton) -> int:
        """Return how many bytes the trained adapter's updates take in float32; a learned token is not counted."""
        return 4 * sum(self._updates(skeleton, self._trained_by.targets(self.recipe, skeleton.family)).values())

    def _updates(self, skeleton: Skeleton, targets: tuple[str, ...]) -> dict[str, int]:
        """Return weight -> how many numbers an adapter holds for it, of the denoiser's layers that are targeted."""
        numbers = {
            name: self._trained_by.numbers(self.recipe, skeleton.shapes[name]) for name in skeleton.targeted(targets)
        }
        return {name: count for name, count in numbers.items() if count}

    def card(self, folder: Path, losses: list[tuple[int, float]]) -> dict[str, Any]:
        """Return what adapter.json holds; `losses` are pairs of optimizer step and mean loss."""
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
    """Return the adapters that a study wants trained: every subject by every method, then each method's null adapter.

    Args:
        references: subject name -> file name -> SHA-256, as `check_references` returns them.
    """
    wanted = [
        AdapterOrder(
            f"{subject.name}-{method}", method, recipe, base_sha256, subject, tuple(references[subject.name].items())
        )
        for subject in study.subjects
        for method, recipe in study.methods.items()
    ]
    if study.identity_control:
        recipes = list(study.methods.items()) if study.subjects else []
        nulls = [AdapterOrder(f"{CONTROL}-{name}", name, recipe, base_sha256) for name, recipe in recipes]
        if study.adapters and all(null.triggers is not None for null in nulls):
            # Adapters brought along may update weights, and so has to do one control.
            nulls.append(AdapterOrder(f"{CONTROL}-{LORA.name}", LORA.name, LORA.recipe(), base_sha256))
        wanted += nulls
    return tuple(wanted)


def together(orders: Sequence[AdapterOrder], subjects: int) -> tuple[tuple[AdapterOrder, ...], ...]:
    """Return the orders in groups, each trained in one batch: up to `subjects` of one method; null adapters alone.

    Groups follow from the study alone, so that a resumed training ends with the same bits.
    """
    groups: list[tuple[AdapterOrder, ...]] = []
    for method in dict.fromkeys(order.trained_by for order in orders):
        own = [order for order in orders if order.trained_by == method and order.subject]
        groups += [tuple(own[k : k + subjects]) for k in range(0, len(own), subjects)]
    return (*groups, *((order,) for order in orders if not order.subject))


def is_trained(folder: Path, order: AdapterOrder) -> bool:
    """Return whether the folder already holds what the order asks for.

    Raises:
        InputError: it holds an adapter that was trained with other settings.
    """
    if not (folder / CARD).exists():
        return False
    _, card = read_card(folder, order.base_sha256)
    if card.get("training_digest") != order.digest:
        problem = "holds an adapter that was trained with other settings"
        raise InputError(str(folder), problem, "delete it or give another --output")
    return True


def info_of(order: AdapterOrder, folder: Path) -> AdapterInfo:
    """Return a trained adapter as a run knows it.

    The category of its subject is the study's, not the card's: it decides which prompts are target prompts, and no
    weight, so it may be corrected after the training.
    """
    info, _ = read_card(folder, order.base_sha256)
    return replace(info, subject_category=order.subject.category) if order.subject else info
