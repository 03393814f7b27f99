"""What is to be drawn: a study and its adapters go in; blocks, noise pairs, units and a digest come out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from raymap.study.adapter import BASE, AdapterInfo
from raymap.study.interventions import MARK, Variant
from raymap.study.model import MemorySettings, SpeedSettings, Study


@dataclass(frozen=True)
class Item:
    """One image of a block: a prompt and a seed."""

    prompt_id: str
    prompt: str
    prompt_category: str
    seed: int


@dataclass(frozen=True)
class Block:
    """Prompts × seeds that are drawn together, first by the base, then under every adapter.

    `items` are without padding; a batch is padded to the plan's batch size by repeating the last one. `pairs` are
    positions in `items` of two seeds of one prompt, which are compared for the noise floor.
    """

    index: int
    items: tuple[Item, ...]
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, order=True)
class Unit:
    """One batch: a block drawn by the base or under one adapter. Work is scheduled, committed and resumed by units.

    `adapter` may also name a variant of an adapter (raymap.study.interventions).
    """

    block: int
    adapter: str

    @classmethod
    def of_base(cls, block: int) -> Unit:
        """Return a block's batch that the base draws."""
        return cls(block, BASE)

    @property
    def key(self) -> str:
        return f"{self.block:05d}-{self.adapter}"

    @property
    def is_base(self) -> bool:
        """Whether it is drawn by the base, without an adapter."""
        return self.adapter == BASE

    @property
    def is_intervention(self) -> bool:
        """Whether it is drawn under a variant, and so belongs to no map."""
        return MARK in self.adapter


@dataclass(frozen=True)
class Plan:
    """All blocks under all adapters; `digest` covers everything that decides a pixel or a score."""

    blocks: tuple[Block, ...]
    adapters: tuple[AdapterInfo, ...]
    batch_size: int
    digest: str

    @property
    def units(self) -> tuple[Unit, ...]:
        """Every unit, block by block, the base first."""
        names = (BASE, *(a.name for a in self.adapters))
        return tuple(Unit(b.index, name) for b in self.blocks for name in names)

    def under(self, variants: Sequence[Variant]) -> Plan:
        """Return the same blocks under variants of this plan's adapters; the digest is the same, as names tell them."""
        of = {adapter.name: adapter for adapter in self.adapters}
        return replace(self, adapters=tuple(replace(of[v.adapter], name=v.name) for v in variants))

    def images(self, units: set[Unit]) -> int:
        """Return how many images the given units hold, without padding."""
        return sum(len(self.blocks[u.block].items) for u in units)


def make_plan(
    study: Study,
    adapters: tuple[AdapterInfo, ...],
    model_digests: dict[str, str],
    judge_versions: dict[str, str] | None = None,
    one_prompt: bool = False,
) -> Plan:
    """Cut prompts × seeds into blocks that fill one batch shape.

    A block holds all seeds of its prompts. Where there are more seeds than a batch holds, a prompt is spread over
    several blocks, and its noise pairs are in the first.

    Args:
        model_digests: of the base and of the embedded judges.
        judge_versions: of the study's further judges, by name.
        one_prompt: whether a batch has to hold a single prompt (raymap.base.families.family).
    """
    seeds = study.seeds
    size = min(study.batch_size, len(seeds)) if one_prompt else study.batch_size
    blocks: list[Block] = []
    if len(seeds) <= size:
        per_block = size // len(seeds)
        groups = [study.prompts[k : k + per_block] for k in range(0, len(study.prompts), per_block)]
        for group in groups:
            items = tuple(Item(p.id, p.text, p.category, s) for p in group for s in seeds)
            pairs = tuple(
                (k * len(seeds) + a, k * len(seeds) + b) for k in range(len(group)) for a, b in noise_pairs(len(seeds))
            )
            blocks.append(Block(len(blocks), items, pairs))
    else:
        for p in study.prompts:
            for start in range(0, len(seeds), size):
                chunk = seeds[start : start + size]
                items = tuple(Item(p.id, p.text, p.category, s) for s in chunk)
                blocks.append(Block(len(blocks), items, noise_pairs(size) if start == 0 else ()))
    return Plan(tuple(blocks), adapters, size, _digest(study, adapters, model_digests, judge_versions))


def noise_pairs(seeds: int) -> tuple[tuple[int, int], ...]:
    """Return pairs of seed positions: three disjoint ones from six seeds on, otherwise all pairs of the first four."""
    if seeds >= 6:
        return ((0, 1), (2, 3), (4, 5))
    return tuple(combinations(range(min(seeds, 4)), 2))


def _digest(
    study: Study,
    adapters: tuple[AdapterInfo, ...],
    model_digests: dict[str, str],
    judge_versions: dict[str, str] | None,
) -> str:
    decides: dict[str, Any] = {
        "models": model_digests,
        "clip": study.clip,
        "lpips": study.lpips,
        "sampler": study.sampler.model_dump(),
        "seeds": study.seeds,
        "prompts": [(p.id, p.text, p.category) for p in study.prompts],
        "adapters": [asdict(a) for a in adapters],
        "batch_size": study.batch_size,
        "dtype": study.dtype,
        "protocol": study.protocol,
        "draw_anyway": study.draw_anyway,
        "threads": study.resources.threads_per_worker if not study.resources.gpus_per_worker else None,
    }
    # These are left out by default, so that the digests of runs from before these settings stay the same.
    if study.speed != SpeedSettings():
        decides["speed"] = study.speed.model_dump()
    if study.memory != MemorySettings():
        decides["memory"] = study.memory.model_dump()
    if judge_versions:
        decides["judges"] = judge_versions
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
