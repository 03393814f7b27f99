"""What actors are built from: names, paths and settings, which the driver sends to them. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from raymap.plan.blocks import Plan
from raymap.store.folder import RunFolder
from raymap.study.interventions import MARK
from raymap.study.model import AttentionSettings, MemorySettings, SamplerSettings, SpeedSettings, Study


@dataclass(frozen=True)
class GeneratorSpec:
    """What a generator needs to know: the base's name, which each node resolves for itself, and the adapters' folders.

    `triggered` puts an adapter's own trigger before each prompt that it draws; `draw_anyway` also draws the images
    that are proved to be the base's own. `dtype` is torch's name for the number format that the model computes in.
    `weights` names a single file whose denoiser takes the place of the base's.
    """

    base: str | Path
    adapters: dict[str, Path]
    sampler: SamplerSettings
    batch_size: int
    dtype: str
    triggered: bool
    draw_anyway: bool
    threads: int
    device: str
    speed: SpeedSettings = field(default_factory=SpeedSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    weights: str | None = None

    @classmethod
    def of(cls, study: Study, base: str, plan: Plan, folder: RunFolder) -> Self:
        """Return what a study's generators need; variants of an adapter are made from the adapter's own files.

        Args:
            base: the name by which every node gets the same files.
        """
        adapters = dict.fromkeys(adapter.name.partition(MARK)[0] for adapter in plan.adapters)
        return cls(
            base,
            {name: folder.adapter(name) for name in adapters},
            study.sampler,
            plan.batch_size,
            study.dtype,
            triggered=study.protocol == "triggered",
            draw_anyway=study.draw_anyway,
            threads=study.resources.threads_per_worker,
            device=study.resources.device,
            speed=study.speed,
            memory=study.memory,
            weights=study.weights,
        )


@dataclass(frozen=True)
class ScorerSpec:
    """What a scorer needs to know: the names of its judges, where to write, and what it computes on.

    With `keep_all` every adapted image is kept, else one per prompt and adapter. `device` is a type of device, `cpu` or
    `cuda`. `judges` are those beside CLIP and LPIPS.
    """

    clip: str
    lpips: str
    folder: Path
    digest: str
    keep_all: bool
    threads: int
    device: str
    judges: tuple[str, ...] = ()

    @classmethod
    def of(cls, study: Study, plan: Plan, folder: RunFolder) -> Self:
        """Return what a study's scorers need."""
        return cls(
            study.clip,
            study.lpips,
            folder.root,
            plan.digest,
            keep_all=study.images == "all",
            threads=study.resources.threads_per_worker,
            device=study.resources.device,
            judges=study.judges,
        )


@dataclass(frozen=True)
class AttentionSpec:
    """What a worker needs to know to measure attention: how to draw, how to reduce maps, and the images' size.

    `size` is height and width in pixels.
    """

    generator: GeneratorSpec
    settings: AttentionSettings
    size: tuple[int, int]


@dataclass(frozen=True)
class TablesSpec:
    """What tables of attention need: the digest with which they are stamped, and the order of the protocols."""

    digest: str
    protocols: tuple[str, ...]
