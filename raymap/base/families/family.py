"""What raymap has to be told about a kind of base, because neither its files nor diffusers say it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

from raymap.study.interventions import REST, TIMESTEPS, Levels, Part, Variant


@dataclass(frozen=True)
class Family:
    """One kind of base. Weights are named `<component>.<parameter>`, as in `unet.conv_in.weight`.

    Components have the names that diffusers gives them, which are those of their folders and of the pipeline's
    attributes; the autoencoder is `vae` and the scheduler `scheduler` in every pipeline.
    """

    title: str
    """The family's name in prose."""

    pipeline: str
    """`module:Class` of the diffusers pipeline that loads and draws; model_index.json names the class."""

    denoiser: str
    text_encoder: str
    tokenizer: str

    token_embedding: str
    """The text encoder's weight (vocabulary, width)."""

    position_embedding: str
    """The text encoder's weight (tokens that it reads, width)."""

    stages: tuple[str, ...]
    """The denoiser's top-level blocks, in the order of a forward pass."""

    self_attention: str
    cross_attention: str
    """The last part of the name of an attention layer that reads the image, and of one that reads the prompt."""

    projections: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out")
    """The linear layers within an attention layer."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's `from_pretrained`."""

    hub_prefix: str = ""
    """What the names of weights start with in files from the hub, and do not in the installed libraries."""

    outlines: Mapping[str, str] = field(default_factory=dict)
    """Hub ids whose architecture is known, each with the folder of its configurations below `raymap/base/outlines`."""

    @property
    def class_name(self) -> str:
        """The pipeline's class as model_index.json names it."""
        return self.pipeline.rpartition(":")[2]

    @property
    def pipeline_class(self) -> Any:
        """The pipeline's class itself. Loads torch and diffusers."""
        module, _, name = self.pipeline.partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def adapted(self) -> tuple[str, ...]:
        """The components whose weights adapters change."""
        return self.denoiser, self.text_encoder

    @property
    def parts(self) -> tuple[str, ...]:
        """All components that decide an image."""
        return self.denoiser, "vae", self.text_encoder, self.tokenizer, "scheduler"

    @property
    def keys_and_values(self) -> tuple[str, ...]:
        """The ends of the names of the layers that turn a prompt into keys and values."""
        return tuple(f"{self.cross_attention}.{projection}" for projection in ("to_k", "to_v"))

    def in_denoiser(self, weight: str) -> bool:
        """Return whether a weight is the denoiser's."""
        return weight.startswith(f"{self.denoiser}.")

    def is_attention(self, weight: str) -> bool:
        """Return whether a weight is one of the denoiser's attention projections."""
        return self._projection.fullmatch(weight) is not None

    def level(self, part: Part, weight: str) -> str:
        """Return the level to which a weight belongs when interventions divide an adapter by a kind of part.

        Attention weights have a projection (`attn2.to_k`), an attention (`attn2`) and a layer
        (`down_blocks.0.….attn2`); all weights of the denoiser's stages have a stage. All others belong to `rest`.
        """
        if part == "stage":
            stage = weight.removeprefix(f"{self.denoiser}.").partition(".")[0]
            return stage if self.in_denoiser(weight) and stage in self.stages else REST
        match = self._projection.fullmatch(weight)
        if match is None:
            return REST
        return f"{match['attention']}.{match['projection']}" if part == "projection" else match[part]

    def levels(self, weights: Collection[str]) -> Levels:
        """Return the levels into which each kind of part divides an adapter that updates these weights.

        A kind of part divides nothing, and has no levels, where a single one would hold the whole adapter.
        """
        levels: dict[Part, tuple[str, ...]] = {}
        for part in get_args(Part):
            found = TIMESTEPS if part == "timesteps" else tuple(sorted({self.level(part, name) for name in weights}))
            levels[part] = found if len(found) > 1 else ()
        return levels

    def acting(self, variant: Variant, weights: Collection[str]) -> frozenset[str] | None:
        """Return which of an adapter's weights act under a variant of it; None stands for all of them."""
        part = variant.mask
        if part is None:
            return None
        return frozenset(name for name in weights if self.level(part, name) == variant.level)

    @cached_property
    def _projection(self) -> re.Pattern[str]:
        attention = "|".join(map(re.escape, (self.self_attention, self.cross_attention)))
        projection = "|".join(map(re.escape, self.projections))
        layer = rf"(?P<layer>.+\.(?P<attention>{attention}))"
        return re.compile(rf"{re.escape(self.denoiser)}\.{layer}\.(?P<projection>{projection})\b.*")
