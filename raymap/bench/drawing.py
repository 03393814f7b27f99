"""Draws blocks with a setup's model and adapters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from raymap.adapters.resident import AdapterStore
from raymap.adapters.update import Adapter
from raymap.base.compile import speed_up
from raymap.base.device import pin
from raymap.base.model import open_base
from raymap.base.pipeline import load
from raymap.bench.backend import attention_backend, check_attention
from raymap.bench.models import random_base, random_lora
from raymap.bench.setups import Setup
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.plan.blocks import Block, Item
from raymap.scoring.names import RANDOM
from raymap.study.adapter import AdapterInfo
from raymap.study.model import SamplerSettings
from raymap.study.suite import read_suite

SEEDS = (0, 1)


def block_of(setup: Setup, index: int) -> Block:
    """Return a block that fills one batch; each index has prompts of its own until all of the suite are used."""
    size = setup.batch_size
    prompts = read_suite("embedded", "bench", Path())
    start = index * -(-size // len(SEEDS))
    chosen = [prompts[(start + k // len(SEEDS)) % len(prompts)] for k in range(size)]
    items = tuple(Item(p.id, p.text, p.category, SEEDS[k % len(SEEDS)]) for k, p in enumerate(chosen))
    return Block(index, items, tuple((k, k + 1) for k in range(0, size - 1, 2)))


def build(setup: Setup) -> StableDiffusionPipeline:
    """Return a setup's pipeline on its device, with its resolution, memory layout and compilation.

    Compilation itself happens when the first batch is drawn.

    Raises:
        RuntimeError: the setup's attention backend cannot compute the denoiser's attention.
    """
    dtype = getattr(torch, setup.dtype)
    if setup.base.startswith(RANDOM):
        pipeline = random_base(setup.base.removeprefix(RANDOM), setup.device, dtype)
    else:
        base = open_base(setup.base)
        pipeline = load(base.folder, setup.device, dtype, file=base.file)
    if setup.resolution is not None:
        pipeline.unet.register_to_config(sample_size=setup.resolution // pipeline.vae_scale_factor)
    check_attention(pipeline, setup.attention)
    speed_up(pipeline, setup.speed)
    return pipeline


class Drawer:
    """A setup's model on one device, which holds the setup's random LoRAs too."""

    def __init__(self, setup: Setup) -> None:
        pin(setup.threads)
        self.setup = setup
        self.pipeline = build(setup)
        self.store = AdapterStore(self.pipeline)
        self.adapters = [AdapterInfo(f"lora-{k}", "lora", "none", "unknown", "") for k in range(setup.adapters)]
        for k, adapter in enumerate(self.adapters):
            self.store.add(adapter.name, Adapter(random_lora(self.pipeline.unet, k)))
        self.sampler = SamplerSettings(steps=setup.steps, guidance_scale=setup.guidance_scale)
        self._encoder = PromptEncoder(self.pipeline, self.store)

    @property
    def side(self) -> int:
        """The images' side in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    def draw(self, block: Block) -> np.ndarray:
        """Draw a block under the adapter that is swapped in, or by the base: uint8 (N, H, W, 3)."""
        prompts, seeds = [item.prompt for item in block.items], tuple(item.seed for item in block.items)
        with attention_backend(self.setup.attention):
            return draw(self.pipeline, self._encoder, prompts, seeds, self.sampler, self.setup.batch_size)
