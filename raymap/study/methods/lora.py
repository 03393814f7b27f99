"""DreamBooth-LoRA (Hu et al. 2021; Ruiz et al. 2023): low-rank updates of the denoiser's attention layers."""

from __future__ import annotations

from raymap.study.methods.method import Layers, Marker, Method
from raymap.study.recipes import Positive, Rate, Recipe, Text
from raymap.study.subject import Subject

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


class LoraRecipe(Recipe):
    """The defaults are those of diffusers' example `train_dreambooth_lora.py` for Stable Diffusion 1.5.

    `alpha` defaults to the rank. `targets` that are left as they are stand for those of diffusers' script for the
    base's family. The trigger is a rare word that the tokenizer knows, not a new token.
    """

    rank: Positive = 4
    alpha: Rate | None = None
    targets: tuple[str, ...] = TARGETS
    trigger: Text = "sks"
    steps: Positive = 500
    batch_size: Positive = 1
    learning_rate: Rate = 1e-4


class Lora(Method[LoraRecipe]):
    """LoRA of the linear layers that the recipe targets."""

    name = "lora"
    recipe = LoraRecipe
    trainer = "raymap.personalize.methods.lora:train"
    reader = "raymap.adapters.lora:read"
    embedded = LoraRecipe(steps=200, batch_size=4, learning_rate=2e-3)
    marker: Marker = "s"

    def trigger(self, recipe: LoraRecipe, subject: Subject | None) -> str:
        return recipe.trigger

    def targets(self, recipe: LoraRecipe, layers: Layers) -> tuple[str, ...]:
        return layers.lora_targets if recipe.targets == TARGETS else recipe.targets

    def numbers(self, recipe: LoraRecipe, shape: tuple[int, ...]) -> int:
        return recipe.rank * sum(shape) if len(shape) == 2 else 0


LORA = Lora()
