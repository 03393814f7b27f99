"""Draws batches: holds the base and all adapters resident and swaps between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymap.diffusion.adapters import LORA_FILE, AdapterStore, read_lora
from raymap.diffusion.base import load
from raymap.diffusion.sampling import PromptEmbeddings, draw
from raymap.plan import BASE, Block
from raymap.study import SamplerSettings


@dataclass(frozen=True)
class GeneratorSpec:
    """What a generator needs to know; `adapters` maps names to adapter folders."""

    base: Path
    adapters: dict[str, Path]
    sampler: SamplerSettings
    batch_size: int
    threads: int
    device: str


class Generator:
    """One base model on one device, drawing blocks under any adapter."""

    def __init__(self, spec: GeneratorSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec = spec
        self.pipeline = load(spec.base, spec.device)
        self.store = AdapterStore(self.pipeline.unet)
        for name, folder in spec.adapters.items():
            self.store.add(name, read_lora(folder / LORA_FILE, self.pipeline.unet))
        self.embeddings = PromptEmbeddings(self.pipeline)

    def ready(self) -> dict[str, Any]:
        """Return what run.json records of a worker: device type and name, threads."""
        name = torch.cuda.get_device_name() if self.spec.device == "cuda" else "cpu"
        return {"device": self.spec.device, "name": name, "threads": self.spec.threads}

    def draw(self, block: Block, adapter: str) -> np.ndarray:
        """Draw a block by the base (`adapter` is "base") or under an adapter, uint8 (N, H, W, 3)."""
        self.store.swap(None if adapter == BASE else adapter)
        return draw(
            self.pipeline,
            self.embeddings,
            [item.prompt for item in block.items],
            tuple(item.seed for item in block.items),
            self.spec.sampler,
            self.spec.batch_size,
        )
