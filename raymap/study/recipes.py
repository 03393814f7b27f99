"""What the training recipes of all personalization methods share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt

Positive = Annotated[int, Field(ge=1, strict=True)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


class Recipe(BaseModel):
    """Every hyperparameter of a training. `steps` are optimizer steps of AdamW with a constant `learning_rate`.

    `clip_norm` limits the norm of each subject's gradient. With a `prior_weight`, each batch also holds images of the
    class, which the base itself draws beforehand (`class_images` of them); their loss is weighted by `prior_weight`
    (prior preservation).

    Each method has a subclass, which adds its own keys and gives every key but none of its meaning a default. A
    trained adapter's digest covers all keys, so neither their names nor their defaults may change.
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
