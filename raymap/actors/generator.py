"""Draws batches: holds the base and all adapters resident and swaps between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymap.adapters.folder import load_adapter, read_phrase
from raymap.adapters.skeleton import skeleton_of
from raymap.adapters.store import AdapterStore
from raymap.diffusion.base import load
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.plan import BASE, Block
from raymap.study import SamplerSettings


@dataclass(frozen=True)
class GeneratorSpec:
    """What a generator needs to know; `adapters` maps names to adapter folders.

    `triggered` puts the adapter's own trigger before each prompt that it draws; `draw_anyway` draws images that are
    proved to be the base's own, too.
    """

    base: Path
    adapters: dict[str, Path]
    sampler: SamplerSettings
    batch_size: int
    triggered: bool
    draw_anyway: bool
    threads: int
    device: str


class Generator:
    """One base model on one device, drawing blocks under any adapter."""

    def __init__(self, spec: GeneratorSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec = spec
        self.pipeline = load(spec.base, spec.device)
        self.store = AdapterStore(self.pipeline)
        for name, folder in spec.adapters.items():
            self.store.add(name, load_adapter(folder, skeleton_of(spec.base)))
        folders = spec.adapters if spec.triggered else {}
        self.phrases = {name: read_phrase(folder) for name, folder in folders.items()}
        self.encoder = PromptEncoder(self.pipeline, self.store)

    def ready(self) -> dict[str, Any]:
        """Return what run.json records of a worker: device type and name, threads."""
        name = torch.cuda.get_device_name() if self.spec.device == "cuda" else "cpu"
        return {"device": self.spec.device, "name": name, "threads": self.spec.threads}

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, list[bool]]:
        """Draw a block by the base (`adapter` is "base") or under an adapter.

        Returns:
            uint8 (N, H, W, 3), or no picture at all where every one is proved to be the base's own; and for each item
            whether it is proved.
        """
        prompts = [item.prompt for item in block.items]
        if adapter == BASE:
            self.store.swap(None)
            unchanged = [False] * len(prompts)
        else:
            phrase = self.phrases.get(adapter)
            adapted = [f"{phrase} {prompt}" for prompt in prompts] if phrase else prompts
            unchanged = self.encoder.unchanged(prompts, adapter, adapted)
            prompts = adapted
        if all(unchanged) and not self.spec.draw_anyway:
            return np.empty((0, 0, 0, 3), dtype=np.uint8), unchanged
        seeds = tuple(item.seed for item in block.items)
        embeddings, sampler = self.encoder, self.spec.sampler
        return draw(self.pipeline, embeddings, prompts, seeds, sampler, self.spec.batch_size), unchanged
