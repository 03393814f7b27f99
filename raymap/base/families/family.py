"""What raymap has to be told about a kind of base, because neither its files nor diffusers say it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self, get_args

from raymap.base.parts import is_text
from raymap.study.interventions import REST, TIMESTEPS, Levels, Part, Variant
from raymap.study.model import SamplerSettings

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""What diffusers calls the linear layers within an attention layer."""
FLOW = ("flow_prediction",)
"""What the denoisers of flow-matching models predict."""
ADDED = ("add_k_proj", "add_v_proj")
"""The layers of a joint attention that turn the text stream into keys and values."""


@dataclass(frozen=True)
class Family:
    """One kind of base. Weights are named `<component>.<parameter>`, as in `unet.conv_in.weight`.

    The defaults are those of diffusers' own pipelines for Stable Diffusion 3 and its kin.
    """

    title: str
    """The family's name in prose."""

    pipeline: str
    """`module:Class` of the diffusers pipeline that loads and draws; model_index.json names the class."""

    steps: int = 50
    """The number of denoising steps where a study gives none, as in the pipeline's own call."""

    scale: float = 5.0
    """The guidance scale where a study gives none, likewise."""

    guidance: str | None = "guidance_scale"
    """The argument of the pipeline's call that a study's guidance scale sets; None where there is none."""

    unguided: float | None = 1.0
    """Up to this guidance scale there is no classifier-free guidance, and the denoiser runs once in a step instead of
    twice. None: the scale is an input of the denoiser, which runs once whatever it is."""

    flags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What differs for bases whose model_index.json sets a flag: the fields of this description, by the flag's name."""

    negative: str | None = None
    """The negative prompt without which the pipeline would not guide; None leaves the negative side to the pipeline."""

    size: tuple[int, int] | None = None
    """Height and width of images where a study gives none; None: the denoiser's `sample_size` decides."""

    call: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of every call of the pipeline."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's `from_pretrained`."""

    half: Literal["bfloat16", "float16"] = "bfloat16"
    """The 16-bit format in which its makers have it run; the other may overflow, or keep fewer digits for nothing."""

    one_prompt: bool = False
    """Whether a batch has to hold a single prompt, because an image would change with its neighbours'."""

    tokens: int | None = None
    """How many tokens of a prompt its longest text encoder reads; None: as many as that has positions."""

    text_tokens: int | None = None
    """How many tokens of a prompt the denoiser reads, padding included, if that is not what the longest encoder reads;
    where padding is left out, how many a prompt of a line takes."""

    appended_tokens: int | None = None
    """How many tokens the denoiser reads after those of the text encoders with tables of positions, unless the call's
    `max_sequence_length` says otherwise; such pipelines append them whether they have that encoder or not."""

    joint_tokens: int | None = None
    """How many of them pass through the blocks of both streams, if not all do."""

    packed: int = 1
    """How many latents along a side the pipeline packs into one, before the denoiser's own patches."""

    uses: Mapping[str, str | int] = field(default_factory=dict)
    """Through which layers other tokens pass than their names say (`raymap.base.flops.transformer`): a pattern of their
    names, and `image`, `text`, `both`, `pooled` for a single vector, or a number of tokens."""

    linear_attention: str | None = None
    """The last part of the name of attention layers whose cost is linear in the number of tokens."""

    inversions: Mapping[str, str] = field(default_factory=dict)
    """The text encoder that each key of a community file of Textual Inversion belongs to (`clip_l`, `clip_g`, `t5`)."""

    objective: str | None = None
    """`module:Class` of what its denoiser is trained by, an `Objective` (`raymap.personalize.objectives.objective`);
    None: it draws, and cannot be trained."""

    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """The ends of the names of the layers that LoRA trains where a study does not say, as diffusers' script does."""

    stages: tuple[str, ...] = ("transformer_blocks",)
    """The denoiser's top-level lists of blocks, in the order of a forward pass."""

    by_block: bool = True
    """Whether each block of a list is a stage of its own; if not, each list is one."""

    attentions: tuple[str, ...] = ("attn",)
    """The last part of the names of attention layers."""

    text_keys: tuple[str, ...] = ADDED
    """The ends of the names of the layers that turn a prompt into keys and values; none where text has none of its own.
    """

    text_first: bool | None = None
    """In a joint attention, whether the text's keys come before the image's; None: text has attention of its own."""

    text_layout: tuple[str, ...] = ("text_encoder",)
    """Whose tokens the text's keys are, in the order of their positions: text encoders, and parameters of the denoiser
    that hold tokens of its own. What follows them is padding, and so is an encoder that a base lacks."""

    outlines: Mapping[str, str] = field(default_factory=dict)
    """Hub ids whose architecture is known, each with the folder of its configurations below `raymap/base/outlines`."""

    prefixes: Mapping[str, str] = field(default_factory=dict)
    """What the names of each component's weights begin with in a single file that holds a whole pipeline; none where
    such files lack text encoders, or need tokenizers that raymap does not have."""

    predictions: tuple[str, ...] = ()
    """What the denoiser may predict, as schedulers of diffusers name it (`prediction_type`, or FLOW); none: anything.
    """

    known: bool = True
    """Whether raymap describes this kind of pipeline; one that it does not know is drawn with careful defaults."""

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
    def keys_and_values(self) -> tuple[str, ...]:
        """As `text_keys`; methods of personalization ask for it by this name."""
        return self.text_keys

    @property
    def trainable(self) -> bool:
        """Whether its denoiser can be trained."""
        return self.objective is not None

    def learning(self, encoders: Sequence[str]) -> tuple[str, ...]:
        """Return which of a base's text encoders learn a new token: those that files have keys for, or the first."""
        named = tuple(encoder for encoder in self.inversions.values() if encoder in encoders)
        return named or tuple(encoders[:1])

    @property
    def cross_attention(self) -> str | None:
        """The last part of the name of an attention layer that reads the prompt alone; None in joint attention."""
        separate = self.text_keys and self.text_first is None
        return self.text_keys[0].partition(".")[0] if separate else None

    def sampler(self, asked: SamplerSettings) -> SamplerSettings:
        """Return settings with the family's steps and guidance scale where a study, or its base, left them out."""
        defaults: dict[str, Any] = {"steps": self.steps, "guidance_scale": self.scale}
        missing = {key: value for key, value in defaults.items() if key not in asked.model_fields_set}
        return SamplerSettings(**asked.model_dump(exclude_unset=True), **missing)

    def of(self, config: Mapping[str, Any]) -> Self:
        """Return the description of a base with this configuration: a pipeline's, or what model_index.json holds."""
        for flag, changes in self.flags.items():
            if config.get(flag):
                return replace(self, **changes)
        return self

    def passes(self, scale: float) -> int:
        """Return how many passes of the denoiser an image takes in each step at a guidance scale."""
        return 2 if self.unguided is not None and scale > self.unguided else 1

    def in_denoiser(self, weight: str) -> bool:
        """Return whether a weight is a denoiser's."""
        return not is_text(weight)

    def is_attention(self, weight: str) -> bool:
        """Return whether a weight is one of a denoiser's attention projections."""
        return self._projection.fullmatch(weight) is not None

    def level(self, part: Part, weight: str) -> str:
        """Return the level to which a weight belongs when interventions divide an adapter by a kind of part.

        Attention weights have a projection (`attn2.to_k`), an attention (`attn2`) and a layer
        (`down_blocks.0.….attn2`); all weights of the denoiser's stages have a stage. All others belong to `rest`.
        """
        if part == "stage":
            return self._stage(weight)
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

    def _stage(self, weight: str) -> str:
        if is_text(weight):
            return REST
        _, stage, block, *_ = *weight.split("."), ""
        if stage not in self.stages:
            return REST
        return f"{stage}.{block}" if self.by_block else stage

    @cached_property
    def _projection(self) -> re.Pattern[str]:
        attention, projection = ("|".join(map(re.escape, names)) for names in (self.attentions, PROJECTIONS))
        layer = rf"(?P<layer>.+\.(?P<attention>{attention}))"
        return re.compile(rf"(?!text_encoder)[^.]+\.{layer}\.(?P<projection>{projection})\b.*")
