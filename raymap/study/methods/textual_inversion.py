"""Textual Inversion (Gal et al. 2023): the embedding of a new token is learned, and no weight of the base changes."""

from __future__ import annotations

from pydantic import field_validator

from raymap.study.methods.method import CONTROL, Layers, Marker, Method
from raymap.study.recipes import Positive, Rate, Recipe, Text
from raymap.study.subject import Subject

OBJECT_TEMPLATES = (
    "a photo of {}", "a picture of {}", "a clear photo of {}", "a photo of one {}", "a close photo of {}",
    "a bright photo of {}", "a dark photo of {}", "a photo of the {}", "a plain picture of {}", "{} in a photo",
)  # fmt: skip
STYLE_TEMPLATES = (
    "a painting in the style of {}", "a picture in the style of {}", "a drawing in the style of {}",
    "a scene in the style of {}", "an artwork in the style of {}", "a print in the style of {}",
)  # fmt: skip


class InversionRecipe(Recipe):
    """The defaults are those of diffusers' example `textual_inversion.py` (5e-4, scaled by 4 accumulated batches).

    `trigger` may hold `{subject}`, which stands for the subject's name. `initializer` is the word from whose embedding
    the vectors start, by default the class word; every text encoder of the base learns vectors of its own. `templates`
    are captions with one `{}` each; without them the templates of the subject's category are taken. With `restore_rows`
    false, weight decay shrinks the embeddings of all other tokens too, as early training scripts let it.
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


class TextualInversion(Method[InversionRecipe]):
    """A token of one or more vectors, which is the subject's whole phrase."""

    name = "textual_inversion"
    recipe = InversionRecipe
    trainer = "raymap.personalize.methods.textual_inversion:train"
    reader = "raymap.adapters.textual_inversion:read"
    embedded = InversionRecipe(steps=200, batch_size=8, learning_rate=2e-2, vectors=4)
    marker: Marker = "o"
    learns_token = True

    def trigger(self, recipe: InversionRecipe, subject: Subject | None) -> str:
        return recipe.trigger.replace("{subject}", subject.name if subject else CONTROL)

    def phrase(self, recipe: InversionRecipe, subject: Subject | None) -> str:
        return self.trigger(recipe, subject)

    def templates(self, recipe: InversionRecipe, subject: Subject | None) -> tuple[str, ...]:
        style = subject is not None and subject.category == "style"
        return recipe.templates or (STYLE_TEMPLATES if style else OBJECT_TEMPLATES)

    def initializer(self, recipe: InversionRecipe, subject: Subject | None) -> str:
        return recipe.initializer or super().initializer(recipe, subject)

    def refusal(self, recipe: InversionRecipe, layers: Layers) -> str | None:
        if layers.inversions and not recipe.restore_rows:
            return f"`restore_rows: false` is for bases of one text encoder, and {layers.title} has more"
        return super().refusal(recipe, layers)

    def proved(self, recipe: InversionRecipe, subject: Subject | None) -> bool:
        return recipe.restore_rows or subject is None


TEXTUAL_INVERSION = TextualInversion()
