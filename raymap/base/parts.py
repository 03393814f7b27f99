"""The components of a pipeline by the parts they play, which diffusers' names for them tell in every family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEXT = "text_encoder"
"""Every pipeline of diffusers names its text encoders so, and numbers them from the second on."""
DENOISERS = ("unet", "transformer")
"""How the names of denoisers begin."""
BESIDE = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that decide no image which is drawn from a prompt alone."""


@dataclass(frozen=True)
class Parts:
    """The components of one pipeline that decide an image; each name is also that of its folder and attribute."""

    names: tuple[str, ...]

    @property
    def denoisers(self) -> tuple[str, ...]:
        """The modules that predict noise or velocity; a pipeline of two experts has two."""
        return tuple(name for name in self.names if name.startswith(DENOISERS))

    @property
    def encoders(self) -> tuple[str, ...]:
        """The text encoders, in the order in which diffusers numbers them."""
        return tuple(sorted(name for name in self.names if name.startswith(TEXT)))

    @property
    def tokenizers(self) -> dict[str, str]:
        """The tokenizer of each text encoder that has one of its own."""
        pairs = {name: name.replace(TEXT, "tokenizer") for name in self.encoders}
        return {encoder: tokenizer for encoder, tokenizer in pairs.items() if tokenizer in self.names}

    @property
    def adapted(self) -> tuple[str, ...]:
        """The components whose weights adapters change."""
        return *self.denoisers, *self.encoders


def parts_of(index: Mapping[str, Any]) -> Parts:
    """Return the parts that a model_index.json lists: each with its library and class, which are null where absent."""
    listed = {name: kind for name, kind in index.items() if isinstance(kind, list) and name not in BESIDE}
    return Parts(tuple(name for name, kind in listed.items() if kind[0] is not None))


def parts_in(pipeline: Any) -> Parts:
    """Return the parts of a loaded pipeline."""
    components = pipeline.components
    return Parts(tuple(name for name, part in components.items() if part is not None and name not in BESIDE))


def is_text(weight: str) -> bool:
    """Return whether a weight, named `<component>.<parameter>`, is a text encoder's."""
    return weight.startswith(TEXT)
