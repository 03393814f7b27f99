"""What raymap has to know about a personalization method. None of it needs torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

from raymap.errors import InputError
from raymap.study.recipes import Recipe
from raymap.study.subject import Subject

CONTROL = "identity"
"""What scores and maps give as the method, and as the subject, of a null adapter, whichever method wrote it."""
CONTROL_CLASS = "object"
"""The class word of a null adapter, which has no subject of its own."""

Marker = Literal["o", "s", "^", "v", "D", "P", "X"]
"""Matplotlib's name of a marker: circle, square, triangle up or down, diamond, filled plus, filled x."""
R = TypeVar("R", bound=Recipe)


class Layers(Protocol):
    """What a method may ask of a base: a `Family` (raymap.base.families.family) has it."""

    @property
    def title(self) -> str:
        """What this kind of base is called in prose."""
        ...

    @property
    def trainable(self) -> bool:
        """Whether raymap knows what the denoiser of this kind of base is trained by."""
        ...

    @property
    def inversions(self) -> Mapping[str, str]:
        """The text encoder of each key of a Textual Inversion file; empty where files name no text encoder."""
        ...

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The ends of the names of the layers that LoRA trains unless a recipe says otherwise."""
        ...

    @property
    def keys_and_values(self) -> tuple[str, ...]:
        """The ends of the names of the layers that turn a prompt into keys and values."""
        ...


class Method(ABC, Generic[R]):
    """One way to personalize a base model. A subclass describes it; `METHODS` holds an instance of each.

    `trainer` and `reader` name functions as `module:function`. They are imported only where adapters are trained and
    where adapter files are read, so that a driver, an analysis and a report need neither them nor torch.

    The functions below get the recipe of a training and its subject. The subject is None for the *null adapter*: the
    one that the method writes without training, and under which the base must draw exactly what it draws alone.

    Attributes:
        name: the method's key in a study's `methods`, and its name in scores, maps and reports. Adapters are called
            `<subject>-<name>`.
        recipe: the class of its recipe.
        trainer: the function that trains it (`raymap.personalize.lessons.Train`).
        reader: the function that reads its files (`raymap.adapters.read.Reader`). Methods whose files have the same
            layout share a reader.
        embedded: a recipe that suits the embedded base, which is small: the preset `embedded-<name>`.
        marker: what stands for it in scatter plots.
        learns_token: whether its trigger is a new token, whose embedding is learned and kept in a file of Textual
            Inversion's layout.
        caption: the caption of reference images, unless the subject or `templates` gives another; `{}` stands for the
            phrase.
    """

    name: str
    recipe: type[R]
    trainer: str
    reader: str
    embedded: R | None = None
    marker: Marker = "D"
    learns_token: bool = False
    caption: str = "a photo of {}"

    @abstractmethod
    def trigger(self, recipe: R, subject: Subject | None) -> str:
        """Return the word by which prompts call the subject; every caption has to hold it."""

    def phrase(self, recipe: R, subject: Subject | None) -> str:
        """Return what stands for the subject in a prompt: by default the trigger and the class word."""
        return f"{self.trigger(recipe, subject)} {class_word(subject)}"

    def templates(self, recipe: R, subject: Subject | None) -> tuple[str, ...] | None:
        """Return the captions from which one is chosen whenever an image is shown; None if there is only one."""
        return None

    def captions(self, recipe: R, subject: Subject | None) -> tuple[str, ...]:
        """Return the captions of reference images with the phrase filled in."""
        own = subject.instance_prompt if subject else None
        templates = self.templates(recipe, subject) or (own or self.caption,)
        return tuple(template.replace("{}", self.phrase(recipe, subject)) for template in templates)

    def class_prompt(self, subject: Subject | None) -> str:
        """Return the prompt of the class images that the base draws for prior preservation."""
        return f"a photo of {class_word(subject)}"

    def initializer(self, recipe: R, subject: Subject | None) -> str:
        """Return the word from whose embedding a learned token starts: by default the class word's last word."""
        return class_word(subject).split()[-1]

    def targets(self, recipe: R, layers: Layers) -> tuple[str, ...]:
        """Return which of the denoiser's layers are trained, by whole names or ends of names (`attn2.to_k`)."""
        return ()

    def numbers(self, recipe: R, shape: tuple[int, ...]) -> int:
        """Return how many numbers an adapter holds for a targeted layer whose weight has this shape; 0 leaves it out.

        By default it holds whole weights of linear layers and nothing of other layers.
        """
        return math.prod(shape) if len(shape) == 2 else 0

    def refusal(self, recipe: R, layers: Layers) -> str | None:
        """Return why a kind of base cannot be trained by this recipe; None where it can.

        By default, a kind of base is refused for which raymap has no training objective. The null adapter, for which no
        step is taken, can be written for any base.
        """
        return None if layers.trainable else f"raymap cannot train {layers.title}"

    def proved(self, recipe: R, subject: Subject | None) -> bool:
        """Return whether a prompt without the trigger is provably drawn as by the base alone."""
        return False

    def settings(self, given: Any) -> Any:
        """Return a recipe's keys as a study gives them, with the name of a preset replaced by the preset's settings.

        Raises:
            InputError: there is no such preset.
        """
        if isinstance(given, str):
            return self._preset(given)
        if isinstance(given, dict) and "preset" in given:
            return self._preset(given["preset"]) | {key: value for key, value in given.items() if key != "preset"}
        return given

    def _preset(self, name: Any) -> dict[str, Any]:
        known: dict[str, dict[str, Any]] = {f"reference-{self.name}": {}}
        if self.embedded is not None:
            known[f"embedded-{self.name}"] = self.embedded.model_dump(exclude_unset=True)
        if not isinstance(name, str) or name not in known:
            remedy = f"use {' or '.join(known)}, or list the recipe's keys"
            raise InputError(f"methods.{self.name}", f"there is no preset {name!r}", remedy)
        return known[name]


def class_word(subject: Subject | None) -> str:
    """Return the common noun for a subject, or the one that stands in for the null adapter's."""
    return subject.class_word if subject else CONTROL_CLASS
