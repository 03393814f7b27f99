"""Custom Diffusion (Kumari et al. 2023): keys and values of cross-attention are trained, beside a new token."""

from __future__ import annotations

from raymap.study.methods.method import Layers, Marker, Method, class_word
from raymap.study.recipes import Positive, Rate, Recipe, Share, Text
from raymap.study.subject import Subject


class CustomDiffusionRecipe(Recipe):
    """The defaults are those of diffusers' example `train_custom_diffusion.py` (1e-5, scaled by 4 accumulated batches).

    `initializer` is the word from whose embedding the new token starts. `augment` rescales the references.
    """

    trigger: Text = "<new1>"
    initializer: Text = "ktn"
    augment: bool = True
    steps: Positive = 250
    batch_size: Positive = 2
    learning_rate: Rate = 4e-5
    prior_weight: Share | None = 1.0
    class_images: Positive = 200


class CustomDiffusion(Method[CustomDiffusionRecipe]):
    """Whole new weights of the layers that read the prompt, and a modifier token before the class word.

    Only a denoiser with cross-attention has the layers of the published method. Stable Diffusion 3 and FLUX.1 attend to
    text and image together, and the text stream's own keys and values are trained there: an analogue of ours, which
    nobody has published.
    """

    name = "custom_diffusion"
    recipe = CustomDiffusionRecipe
    trainer = "raymap.personalize.methods.custom_diffusion:train"
    reader = "raymap.adapters.custom_diffusion:read"
    embedded = CustomDiffusionRecipe(steps=150, batch_size=4, learning_rate=1e-3, class_images=16)
    marker: Marker = "^"
    learns_token = True
    caption = "photo of a {}"

    def trigger(self, recipe: CustomDiffusionRecipe, subject: Subject | None) -> str:
        return recipe.trigger

    def class_prompt(self, subject: Subject | None) -> str:
        return class_word(subject)

    def initializer(self, recipe: CustomDiffusionRecipe, subject: Subject | None) -> str:
        return recipe.initializer

    def targets(self, recipe: CustomDiffusionRecipe, layers: Layers) -> tuple[str, ...]:
        return layers.keys_and_values


CUSTOM_DIFFUSION = CustomDiffusion()
