"""A study: everything that a run is asked to do, validated and frozen."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictInt,
    field_validator,
    model_validator,
)

from raymap.embedded.model import PIPELINES
from raymap.study.interventions import Interventions
from raymap.study.methods.lora import LORA
from raymap.study.methods.registry import Recipes
from raymap.study.recipes import Positive
from raymap.study.source import file_stem, without_secrets
from raymap.study.subject import Name, Subject, SubjectCategory
from raymap.study.suite import Prompt

Quantize = Literal["none", "int8", "nf4"]
Compile = Literal["none", "default", "max-autotune", "reduce-overhead"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Brought(_Frozen):
    """An adapter that exists already: a file, a folder of files, a folder that raymap trained, a URL, or a hub id.

    `path` names it (`raymap.study.source`); what would open a door in a URL is not written down with the study.
    A file made elsewhere does not say what its subject is, nor always what its trigger is. `category` is the subject's,
    and makes the prompts of that category target prompts; `trigger` renames the adapter's learned token.
    """

    path: Annotated[str, BeforeValidator(str), PlainSerializer(without_secrets)]
    name: Name | None = None
    category: SubjectCategory | None = None
    trigger: Annotated[str, Field(min_length=1)] | None = None

    @property
    def short_name(self) -> str:
        """The given name, else that of the file or folder, in lower case and with dashes for other characters."""
        return self.name or re.sub(r"[^a-z0-9_]+", "-", file_stem(self.path).lower()).strip("-_") or "adapter"


class SamplerSettings(_Frozen):
    """How images are drawn with the base's own scheduler: how many denoising steps, which guidance scale, which size.

    What a study leaves out is the base's own, or its family's, and not the value here; sizes are in pixels.
    """

    steps: Positive = 20
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    height: Annotated[Positive | None, Field(exclude_if=lambda side: side is None)] = None
    width: Annotated[Positive | None, Field(exclude_if=lambda side: side is None)] = None

    @model_validator(mode="after")
    def _both_sides(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError("height, width: one of them is missing; give both or none")
        return self


class SpeedSettings(_Frozen):
    """What makes drawing faster and changes last bits: the mode of `torch.compile`, the memory layout of the model."""

    compile: Compile = "none"
    channels_last: bool = False


class MemorySettings(_Frozen):
    """What lets a large base fit into a device's memory, each at a price in time.

    `offload` keeps text encoders in the host's memory while images are drawn (`encoders`), or every component while it
    is not in use (`model`). `decode` has the autoencoder decode one image after another (`sliced`), or in tiles too
    (`tiled`), which changes pixels near their seams. `quantize` stores the denoiser's matrices in 4 or 8 bits.
    """

    offload: Literal["none", "encoders", "model"] = "none"
    decode: Literal["whole", "sliced", "tiled"] = "whole"
    quantize: Quantize = "none"

    @property
    def beside(self) -> bool:
        """Whether the denoiser's weights are not written, so that adapters act beside its layers."""
        return self.quantize != "none" or self.offload == "model"


class AttentionSettings(_Frozen):
    """How `raymap attention` reduces maps: to how many bins of denoising steps and groups of a layer's heads."""

    bins: Positive = 5
    head_groups: Positive = 1
    protocols: Annotated[tuple[Literal["free", "forced"], ...], Field(min_length=1)] = ("free", "forced")

    @field_validator("protocols")
    @classmethod
    def _in_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(protocol for protocol in ("free", "forced") if protocol in value)


class Workers(_Frozen):
    """How many workers draw: at least `min` while there is work, and up to `max` where nodes have room for them."""

    min: Positive = 1
    max: Positive = 2

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Resources(_Frozen):
    """How many workers there are, and what each gets. `workers: 4` means at least four and at most four.

    `threads_per_worker` decides last bits on a CPU, so it is part of a run's digest. `cpus_per_worker` is what Ray
    reserves, by default one per thread; a fraction of a GPU suffices for a small base. `accelerator_type` (Ray's name,
    such as `H100`) and `custom` resources restrict workers to nodes that have them. `train_together` is how many
    subjects of one method are trained in one batch. `gpu_memory` is a worker's GPU memory in GiB, where the type of
    accelerator does not say it.
    """

    workers: Workers = Workers()
    threads_per_worker: Positive = 1
    cpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] = 0
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    gpu_memory: Annotated[float | None, Field(gt=0, exclude_if=lambda size: size is None)] = None
    custom: dict[str, Annotated[float, Field(gt=0)]] = {}
    train_together: Positive = 1

    @field_validator("workers", mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        return {"min": value, "max": value} if type(value) is int else value

    @property
    def device(self) -> str:
        """The type of the workers' device, as torch names it."""
        return "cuda" if self.gpus_per_worker else "cpu"

    @property
    def bundle(self) -> dict[str, float]:
        """What a worker reserves, by Ray's names of resources."""
        cpus = self.threads_per_worker if self.cpus_per_worker is None else self.cpus_per_worker
        asked = {"CPU": cpus, "GPU": self.gpus_per_worker, **self.custom}
        if self.accelerator_type:
            asked[f"accelerator_type:{self.accelerator_type}"] = 0.001
        return {name: amount for name, amount in asked.items() if amount}


class Study(_Frozen):
    """Everything that decides a run. docs/study.md explains the keys.

    `weights` names a single file whose denoiser takes the place of the base's. `judges` are those beside CLIP and
    LPIPS, in alphabetical order; without any, no file of a run mentions them.
    """

    name: Name
    base: Annotated[str, Field(min_length=1)] = "embedded"
    weights: Annotated[str | None, Field(min_length=1, exclude_if=lambda name: name is None)] = None
    clip: str = "embedded"
    lpips: str = "embedded"
    judges: Annotated[tuple[Name, ...], Field(exclude_if=lambda names: not names)] = ()
    sampler: SamplerSettings = SamplerSettings()
    seeds: tuple[Annotated[StrictInt, Field(ge=0, lt=2**63)], ...]
    prompts: tuple[Prompt, ...]
    subjects: tuple[Subject, ...] = ()
    methods: Recipes = {LORA.name: LORA.recipe()}
    adapters: tuple[Brought, ...] = ()
    protocol: Literal["plain", "triggered"] = "plain"
    draw_anyway: bool = False
    identity_control: bool = True
    interventions: Interventions | None = None
    attention: AttentionSettings = AttentionSettings()
    batch_size: Positive = 16
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    speed: SpeedSettings = SpeedSettings()
    memory: Annotated[MemorySettings, Field(exclude_if=lambda memory: memory == MemorySettings())] = MemorySettings()
    images: Literal["all", "report"] = "report"
    resources: Resources = Resources()

    @property
    def offline(self) -> bool:
        """Whether base and judges are all embedded, so that nothing is ever asked of the model hub.

        A further judge may fetch its weights from there.
        """
        return self.base in PIPELINES and self.clip == self.lpips == "embedded" and not self.judges

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_of_seeds(cls, value: Any) -> Any:
        return tuple(range(value)) if type(value) is int else value

    @field_validator("judges")
    @classmethod
    def _in_alphabetical_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.seeds) < 2:
            raise ValueError("seeds: a noise floor needs at least 2; write `seeds: 3`")
        if self.batch_size < 2:
            raise ValueError("batch_size: a noise floor pairs two seeds of one batch; write `batch_size: 2`")
        if self.subjects and not self.methods:
            raise ValueError("methods: there is none to train the subjects with; write "
                             f"`methods: {{{LORA.name}: reference-{LORA.name}}}`")  # fmt: skip
        if not self.subjects and not self.adapters:
            raise ValueError("subjects: there is nothing to measure; give `subjects:` to train or `adapters:` to load")
        if self.base not in PIPELINES and not {"clip", "lpips"} <= self.model_fields_set:
            raise ValueError("clip, lpips: the embedded judges know only images of the embedded bases; write "
                             "`clip: ViT-L-14/openai` and `lpips: alex`")  # fmt: skip
        if self.interventions and self.protocol == "triggered":
            raise ValueError("interventions: a trigger has no dose, so dose 0 would not be the base; "
                             "write `protocol: plain`")  # fmt: skip
        if self.memory.beside and self.speed.compile != "none":
            raise ValueError("speed.compile: it is not possible where adapters act beside layers; leave it out, or "
                             "leave out `memory.quantize` and `memory.offload: model`")  # fmt: skip
        if self.memory.quantize != "none" and self.interventions:
            raise ValueError("interventions: they need weights that can be read; leave out `memory.quantize`")
        for key, values in (
            ("seeds", self.seeds),
            ("subjects", [s.name for s in self.subjects]),
            ("judges", self.judges),
        ):
            twice = [v for v, n in Counter(values).items() if n > 1]
            if twice:
                raise ValueError(f"{key}: {twice[0]!r} is listed twice; remove one")
        return self
