"""A subject: the one thing that an adapter is trained to draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from raymap.study.suite import PromptCategory

NAME = r"^[a-z0-9][a-z0-9_-]*$"
"""What names of studies, subjects and adapters look like."""
Name = Annotated[str, Field(pattern=NAME)]
SubjectCategory = Literal["face", "object", "style"]
OWN_CATEGORY: dict[str, PromptCategory] = {"face": "people", "object": "objects", "style": "styles"}
"""Subject category -> the prompt category that counts as its own. Prompts of that category are its *target* prompts."""


class Subject(BaseModel):
    """One thing to personalize for, shown by reference images (three to six in most studies).

    `class_word` is the common noun for it. `instance_prompt` replaces the caption under which a method trains the
    references, unless the method has captions of its own; a `{}` in it stands for the method's phrase (trigger and
    class word).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    category: SubjectCategory
    class_word: Annotated[str, Field(min_length=1)]
    references: Annotated[tuple[Path, ...], Field(min_length=1)]
    instance_prompt: str | None = None
