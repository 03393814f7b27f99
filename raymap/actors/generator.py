"""Draws batches: holds the base and all adapters resident and swaps between them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymap.actors.batches import Drawn
from raymap.adapters.folder import load_adapter, read_phrase
from raymap.adapters.skeleton import skeleton_of
from raymap.adapters.store import AdapterStore
from raymap.device import device_name, pin
from raymap.diffusion.base import load, resolve
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.plan import BASE, Block
from raymap.study import SamplerSettings


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


class Generator:
    """One base model on one device, drawing blocks under any adapter."""

    def __init__(self, spec: GeneratorSpec) -> None:
        pin(spec.threads)
        self.spec = spec
        self.device = device_name(spec.device)
        base = resolve(str(spec.base))
        self.pipeline = load(base, spec.device, getattr(torch, spec.dtype))
        self.store = AdapterStore(self.pipeline)
        for name, folder in spec.adapters.items():
            self.store.add(name, load_adapter(folder, skeleton_of(base)))
        folders = spec.adapters if spec.triggered else {}
        self.phrases = {name: read_phrase(folder) for name, folder in folders.items()}
        self.encoder = PromptEncoder(self.pipeline, self.store)

    def ready(self, scorer: bool = True) -> dict[str, Any]:
        """Return what run.json records of a worker: device and threads; `scorer` is the answer of the one beside it."""
        return {"device": self.device, "threads": self.spec.threads}

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        """Draw a block by the base (`adapter` is "base") or under an adapter.

        Returns:
            uint8 (N, H, W, 3), or no picture at all where every one is proved to be the base's own; and how.
        """
        start = time.perf_counter()
        prompts = [item.prompt for item in block.items]
        if adapter == BASE:
            self.store.swap(None)
            unchanged = [False] * len(prompts)
        else:
            phrase = self.phrases.get(adapter)
            adapted = [f"{phrase} {prompt}" for prompt in prompts] if phrase else prompts
            unchanged = self.encoder.unchanged(prompts, adapter, adapted)
            prompts = adapted
        swapped = time.perf_counter()
        if all(unchanged) and not self.spec.draw_anyway:
            pixels = np.empty((0, 0, 0, 3), dtype=np.uint8)
        else:
            seeds = tuple(item.seed for item in block.items)
            pixels = draw(self.pipeline, self.encoder, prompts, seeds, self.spec.sampler, self.spec.batch_size)
        seconds = {"swap_s": swapped - start, "draw_s": time.perf_counter() - swapped}
        return pixels, Drawn(tuple(unchanged), self.device, seconds)
