"""Training recipes: every hyperparameter of every personalization method, and their presets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator

from raymap.errors import InputError

Method = Literal["textual_inversion", "lora", "custom_diffusion"]
Positive = Annotated[int, Field(ge=1, strict=True)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
KEYS_AND_VALUES = ("attn2.to_k", "attn2.to_v")
"""The layers that Custom Diffusion trains."""


class Recipe(BaseModel):
    """What all methods share. `steps` are optimizer steps, `learning_rate` is constant, the optimizer is AdamW.

    With a `prior_weight`, `class_images` pictures that the base itself draws for the class prompt are trained along
    (prior preservation).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Positive
    batch_size: Positive
    learning_rate: Rate
    weight_decay: Share = 1e-2
    clip_norm: Rate | None = 1.0
    prior_weight: Share | None = None
    class_images: Positive = 100
    seed: Annotated[StrictInt, Field(ge=0)] = 0


class LoraRecipe(Recipe):
    """DreamBooth-LoRA: the defaults are diffusers' `train_dreambooth_lora.py` example for SD 1.5.

    `alpha` defaults to the rank; the trigger is a rare word, no new token.
    """

    rank: Positive = 4
    alpha: Rate | None = None
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    trigger: Text = "sks"
    steps: Positive = 500
    batch_size: Positive = 1
    learning_rate: Rate = 1e-4


class InversionRecipe(Recipe):
    """Textual Inversion: the defaults are diffusers' `textual_inversion.py` example (5e-4, scaled by 4 accumulated).

    `trigger` may hold `{subject}`. `initializer` is the word whose row the vectors start from, by default the class
    word. `templates` are captions with one `{}`; None takes those of the subject's category. With `restore_rows`
    false, weight decay shrinks all other rows too, as early training scripts let it.
    """

    vectors: Positive = 1
    trigger: Text = "<{subject}>"
    initializer: Text | None = None
    templates: tuple[str, ...] | None = None
    flip: bool = True
    restore_rows: bool = True
    steps: Positive = 3000
    batch_size: Positive = 4
    learning_rate: Rate = 2e-3
    clip_norm: Rate | None = None

    @field_validator("templates")
    @classmethod
    def _one_place(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for template in value or ():
            if template.count("{}") != 1:
                raise ValueError(f"{template!r} needs exactly one {{}}")
        return value


class CustomDiffusionRecipe(Recipe):
    """Custom Diffusion: the defaults are diffusers' `train_custom_diffusion.py` example (1e-5, scaled by 4).

    Trains keys and values of cross-attention and the row of a modifier token; `augment` rescales the references.
    """

    trigger: Text = "<new1>"
    initializer: Text = "ktn"
    augment: bool = True
    steps: Positive = 250
    batch_size: Positive = 2
    learning_rate: Rate = 4e-5
    prior_weight: Share | None = 1.0
    class_images: Positive = 200


def is_target(module: str, targets: tuple[str, ...]) -> bool:
    """Return whether a module is targeted: by its whole name or its end, as peft matches `target_modules`."""
    return any(module == target or module.endswith(f".{target}") for target in targets)


EMBEDDED: dict[Method, dict[str, Any]] = {
    "textual_inversion": {"steps": 200, "batch_size": 8, "learning_rate": 2e-2, "vectors": 4},
    "lora": {"steps": 200, "batch_size": 4, "learning_rate": 2e-3},
    "custom_diffusion": {"steps": 150, "batch_size": 4, "learning_rate": 1e-3, "class_images": 16},
}
"""Settings that suit the embedded base: it is small, so it takes larger and fewer steps than SD 1.5."""


def preset(name: str, method: Method) -> dict[str, Any]:
    """Return the settings of a preset: `reference-<method>` (diffusers' example) or `embedded-<method>`.

    Raises:
        InputError: no such preset for this method.
    """
    known: dict[str, dict[str, Any]] = {f"reference-{method}": {}, f"embedded-{method}": EMBEDDED[method]}
    if name not in known:
        raise InputError(f"methods.{method}", f"{name!r} is no preset", f"use {' or '.join(known)}, or list the keys")
    return dict(known[name])
