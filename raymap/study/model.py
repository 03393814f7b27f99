"""A study: what is asked. A YAML file goes in, one validated, frozen `Study` comes out."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from raymap.study.interventions import Interventions
from raymap.study.recipes import CustomDiffusionRecipe, InversionRecipe, LoraRecipe, Method, Positive, Recipe, preset
from raymap.study.suite import Prompt, PromptCategory

SubjectCategory = Literal["face", "object", "style"]
OWN_CATEGORY: dict[str, PromptCategory] = {"face": "people", "object": "objects", "style": "styles"}
"""The prompt category that a subject category counts as its own (its *target* prompts)."""

Compile = Literal["none", "default", "max-autotune", "reduce-overhead"]
NAME = r"^[a-z0-9][a-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subject(_Frozen):
    """One thing to personalize for, from 3 to 6 reference images in most studies.

    `class_word` is what the thing is called; `instance_prompt` overrides the caption that LoRA and
    Custom Diffusion train under; {} in it stands for trigger and class word.
    """

    name: Name
    category: SubjectCategory
    class_word: Annotated[str, Field(min_length=1)]
    references: Annotated[tuple[Path, ...], Field(min_length=1)]
    instance_prompt: str | None = None


class Brought(_Frozen):
    """An adapter that is there already: a file, a folder of files, or a folder that raymap trained.

    Files of others say neither what they are about nor, sometimes, what calls it: `category` makes its own category's
    prompts target prompts, `trigger` names its learned token anew.
    """

    path: Path
    name: Name | None = None
    category: SubjectCategory | None = None
    trigger: Annotated[str, Field(min_length=1)] | None = None

    @property
    def short_name(self) -> str:
        """The given name, else the file's or folder's in lower case, other characters made dashes."""
        return self.name or re.sub(r"[^a-z0-9_]+", "-", self.path.stem.lower()).strip("-_") or "adapter"


class Methods(_Frozen):
    """The personalization methods every subject is trained with; a recipe may be given as a preset's name."""

    textual_inversion: InversionRecipe | None = None
    lora: LoraRecipe | None = None
    custom_diffusion: CustomDiffusionRecipe | None = None

    @field_validator("textual_inversion", "lora", "custom_diffusion", mode="before")
    @classmethod
    def _from_preset(cls, value: Any, info: ValidationInfo) -> Any:
        method: Any = info.field_name
        if isinstance(value, str):
            return preset(value, method)
        if isinstance(value, dict) and "preset" in value:
            return preset(value["preset"], method) | {k: v for k, v in value.items() if k != "preset"}
        return value

    @property
    def recipes(self) -> dict[Method, Recipe]:
        """The recipes that are asked for, by method."""
        given: dict[Method, Recipe | None] = {
            "textual_inversion": self.textual_inversion, "lora": self.lora, "custom_diffusion": self.custom_diffusion,
        }  # fmt: skip
        return {method: recipe for method, recipe in given.items() if recipe is not None}


class SamplerSettings(_Frozen):
    """How images are drawn: the base's own scheduler, `steps` denoising steps, guidance scale."""

    steps: Positive = 20
    guidance_scale: Annotated[float, Field(ge=1)] = 5.0


class SpeedSettings(_Frozen):
    """What draws faster and changes last bits: mode of `torch.compile`, memory layout of denoiser and decoder."""

    compile: Compile = "none"
    channels_last: bool = False


class AttentionSettings(_Frozen):
    """How `raymap attention` reduces maps: denoising steps to so many bins, each layer's heads to so many groups."""

    bins: Positive = 5
    head_groups: Positive = 1
    protocols: Annotated[tuple[Literal["free", "forced"], ...], Field(min_length=1)] = ("free", "forced")

    @field_validator("protocols")
    @classmethod
    def _in_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(protocol for protocol in ("free", "forced") if protocol in value)


class Workers(_Frozen):
    """How many workers draw: at least `min` while there is something to draw, up to `max` as nodes come."""

    min: Positive = 1
    max: Positive = 2

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Resources(_Frozen):
    """Workers and what each gets; a plain number of `workers` is both the least and the most.

    `threads_per_worker` decides last bits on a CPU, so it is in the digest. `cpus_per_worker` is what Ray reserves, by
    default the threads; a fraction of a GPU suits a small base. `accelerator_type` (Ray's name, as `H100`) and `custom`
    resources say on which nodes. `train_together` subjects of one method are trained in one batch.
    """

    workers: Workers = Workers()
    threads_per_worker: Positive = 1
    cpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] = 0
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    custom: dict[str, Annotated[float, Field(gt=0)]] = {}
    train_together: Positive = 1

    @field_validator("workers", mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        return {"min": value, "max": value} if type(value) is int else value

    @property
    def device(self) -> str:
        """The type of device that workers compute on."""
        return "cuda" if self.gpus_per_worker else "cpu"

    @property
    def bundle(self) -> dict[str, float]:
        """What a worker reserves, as Ray names it."""
        cpus = self.threads_per_worker if self.cpus_per_worker is None else self.cpus_per_worker
        asked = {"CPU": cpus, "GPU": self.gpus_per_worker, **self.custom}
        if self.accelerator_type:
            asked[f"accelerator_type:{self.accelerator_type}"] = 0.001
        return {name: amount for name, amount in asked.items() if amount}


class Study(_Frozen):
    """Everything that decides a run. See docs/study.md for the file's keys.

    `judges` are those beside CLIP and LPIPS, in alphabetical order; without any, no file of a run mentions them.
    """

    name: Name
    base: Annotated[str, Field(min_length=1)] = "embedded"
    clip: str = "embedded"
    lpips: str = "embedded"
    judges: Annotated[tuple[Name, ...], Field(exclude_if=lambda names: not names)] = ()
    sampler: SamplerSettings = SamplerSettings()
    seeds: tuple[Annotated[StrictInt, Field(ge=0, lt=2**63)], ...]
    prompts: tuple[Prompt, ...]
    subjects: tuple[Subject, ...] = ()
    methods: Methods = Methods(lora=LoraRecipe())
    adapters: tuple[Brought, ...] = ()
    protocol: Literal["plain", "triggered"] = "plain"
    draw_anyway: bool = False
    identity_control: bool = True
    interventions: Interventions | None = None
    attention: AttentionSettings = AttentionSettings()
    batch_size: Positive = 16
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    speed: SpeedSettings = SpeedSettings()
    images: Literal["all", "report"] = "report"
    resources: Resources = Resources()

    @property
    def offline(self) -> bool:
        """Whether base and judges are all embedded, so that nothing is ever asked of the model hub."""
        return self.base == self.clip == self.lpips == "embedded"

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_of_seeds(cls, value: Any) -> Any:
        return tuple(range(value)) if type(value) is int else value

    @field_validator("judges")
    @classmethod
    def _in_alphabetical_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.seeds) < 2:
            raise ValueError("seeds: at least 2 are needed for a noise floor; write `seeds: 3`")
        if self.batch_size < 2:
            raise ValueError("batch_size: a noise floor pairs two seeds of one batch; write `batch_size: 2`")
        if self.subjects and not self.methods.recipes:
            raise ValueError("methods: no method to train the subjects with; write `methods: {lora: reference-lora}`")
        if not self.subjects and not self.adapters:
            raise ValueError("subjects: nothing to measure; give `subjects:` to train or `adapters:` to load")
        if self.base != "embedded" and not {"clip", "lpips"} <= self.model_fields_set:
            raise ValueError("clip, lpips: the embedded judges know the embedded base's pictures alone; write "
                             "`clip: ViT-L-14/openai` and `lpips: alex`")  # fmt: skip
        if self.interventions and self.protocol == "triggered":
            raise ValueError("interventions: a trigger has no dose, so that dose 0 would not be the base; "
                             "write `protocol: plain`")  # fmt: skip
        for key, values in (
            ("seeds", self.seeds),
            ("subjects", [s.name for s in self.subjects]),
            ("judges", self.judges),
        ):
            twice = [v for v, n in Counter(values).items() if n > 1]
            if twice:
                raise ValueError(f"{key}: {twice[0]!r} is listed twice; remove one")
        return self
