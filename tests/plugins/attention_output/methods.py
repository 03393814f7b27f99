"""Describes the methods. Loads no torch."""

from __future__ import annotations

from raymap.study.methods.lora import Lora, LoraRecipe
from raymap.study.methods.method import Layers, Method
from raymap.study.recipes import Positive, Rate, Recipe, Text
from raymap.study.subject import Subject


class AttentionOutputRecipe(Recipe):
    """Whole new weights of the layers that write what cross-attention has read."""

    trigger: Text = "sks"
    steps: Positive = 100
    batch_size: Positive = 2
    learning_rate: Rate = 1e-3


class AttentionOutput(Method[AttentionOutputRecipe]):
    name = "attention_output"
    recipe = AttentionOutputRecipe
    trainer = "attention_output.training:train"
    reader = "attention_output.files:read"
    embedded = AttentionOutputRecipe(steps=4)
    marker = "v"

    def trigger(self, recipe: AttentionOutputRecipe, subject: Subject | None) -> str:
        return recipe.trigger

    def targets(self, recipe: AttentionOutputRecipe, layers: Layers) -> tuple[str, ...]:
        return ("attn2.to_out.0",)


class LoraOfValuesRecipe(LoraRecipe):
    targets: tuple[str, ...] = ("to_v",)


class LoraOfValues(Lora):
    """LoRA of the values alone, trained and read as any LoRA."""

    name = "lora_of_values"
    recipe = LoraOfValuesRecipe
    embedded = LoraOfValuesRecipe(steps=4, batch_size=2, learning_rate=1e-3)
    marker = "D"


ATTENTION_OUTPUT = AttentionOutput()
LORA_OF_VALUES = LoraOfValues()
