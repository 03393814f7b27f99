"""What actors are built from: names, paths and settings, which the driver sends them. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from raymap.study.model import AttentionSettings, SamplerSettings, SpeedSettings


@dataclass(frozen=True)
class GeneratorSpec:
    """What a generator needs to know: the base by its name, which each node resolves; adapters' folders by theirs.

    `triggered` puts the adapter's own trigger before each prompt that it draws; `draw_anyway` draws images that are
    proved to be the base's own, too. `dtype` is torch's name of what the model computes in.
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


@dataclass(frozen=True)
class AttentionSpec:
    """What a worker needs to know to measure attention: how to draw, and how to reduce."""

    generator: GeneratorSpec
    settings: AttentionSettings


@dataclass(frozen=True)
class TablesSpec:
    """What tabulating needs to know: the digest that stamps the tables, and the order of the protocols."""

    digest: str
    protocols: tuple[str, ...]
