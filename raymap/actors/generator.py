"""Draws batches: keeps the base and all adapters in memory and swaps between them."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import torch

from raymap.actors.batches import Drawn
from raymap.actors.roles import WorkerInfo
from raymap.actors.specs import GeneratorSpec
from raymap.adapters.card import read_phrase
from raymap.adapters.derived import derived
from raymap.adapters.read import load_adapter
from raymap.adapters.resident import AdapterStore, weights_of
from raymap.adapters.update import Adapter
from raymap.base.compile import compiled_once, speed_up
from raymap.base.device import device_name, pin
from raymap.base.model import open_base
from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.proof import unchanged
from raymap.drawing.sampling import BeforeStep, draw
from raymap.plan.blocks import Block
from raymap.study.adapter import BASE
from raymap.study.interventions import MARK, Variant, in_force


class Generator:
    """One base on one device, which draws blocks under any adapter or variant of one."""

    def __init__(self, spec: GeneratorSpec) -> None:
        pin(spec.threads)
        self.spec = spec
        self.device = device_name(spec.device)
        base = open_base(str(spec.base), spec.weights)
        self._family = base.family
        self.pipeline = load(base.folder, spec.device, getattr(torch, spec.dtype), spec.memory, base.file)
        speed_up(self.pipeline, spec.speed)
        self._drew = False
        self.store = AdapterStore(self.pipeline)
        self._resident: dict[str, Adapter] = {}
        for name, folder in spec.adapters.items():
            self._add(name, load_adapter(folder, base.skeleton))
        folders = spec.adapters if spec.triggered else {}
        self.phrases = {name: read_phrase(folder) for name, folder in folders.items()}
        self.encoder = PromptEncoder(self.pipeline, self.store)

    def ready(self, scorer: bool = True) -> WorkerInfo:
        """Return what run.json records of a worker; `scorer` is the answer of the actor beside it."""
        return WorkerInfo(self.device, self.spec.threads)

    def draw(self, block: Block, adapter: str) -> tuple[np.ndarray, Drawn]:
        """Draw a block by the base (`adapter` is "base"), under an adapter or under a variant of one.

        Returns:
            uint8 (N, H, W, 3), or no image at all where each is proved to be the base's own; and how it was drawn.

        Raises:
            DrawingError: a pixel is not finite.
            RuntimeError: a compiled base would compile again after the first batch.
        """
        start = time.perf_counter()
        prompts = [item.prompt for item in block.items]
        same = [False] * len(prompts)
        encoder, before_step = self.encoder, None
        if adapter == BASE:
            self.store.swap(None)
        elif MARK in adapter:
            before_step = self._intervene(Variant.parse(adapter))
            if self.store.text_state is not None:  # kept for every variant and prompt, embeddings would fill the device
                encoder = PromptEncoder(self.pipeline, self.store)
        else:
            phrase = self.phrases.get(adapter)
            adapted = [f"{phrase} {prompt}" for prompt in prompts] if phrase else prompts
            same = self.unchanged(prompts, adapter, adapted)
            prompts = adapted
        swapped = time.perf_counter()
        if all(same) and not self.spec.draw_anyway:
            pixels = np.empty((0, 0, 0, 3), dtype=np.uint8)
        else:
            seeds = tuple(item.seed for item in block.items)
            sampler, size = self.spec.sampler, self.spec.batch_size
            with compiled_once(self.spec.speed) if self._drew else contextlib.nullcontext():
                pixels = draw(self.pipeline, encoder, prompts, seeds, sampler, size, before_step)
            self._drew = True
        seconds = {"swap_s": swapped - start, "draw_s": time.perf_counter() - swapped}
        return pixels, Drawn(tuple(same), self.device, seconds)

    def unchanged(self, prompts: list[str], adapter: str, adapted: list[str] | None = None) -> list[bool]:
        """Return for each prompt whether an adapter provably leaves its images alone (raymap.drawing.proof)."""
        return unchanged(self.pipeline, self.store, self.encoder, self.spec.sampler, adapter, prompts, adapted)

    def _add(self, name: str, adapter: Adapter) -> None:
        self.store.add(name, adapter)
        self._resident[name] = adapter

    def _intervene(self, variant: Variant) -> BeforeStep | None:
        """Put a variant in force; return what is to be called before each denoising step, if anything."""
        name = variant.adapter
        if variant.family in ("random", "budget"):
            name = variant.name
            if name not in self._resident:
                self.store.restore()
                self._add(name, derived(self._resident[variant.adapter], variant, weights_of(self.pipeline)))
        updates = self._resident[name].updates
        self.store.swap(name, variant.alpha, self._family.acting(variant, updates))
        if variant.family != "timesteps":
            return None
        text_alone = frozenset(key for key in updates if not self._family.in_denoiser(key))

        def before_step(step: int, steps: int) -> None:
            changed = in_force(variant, step, steps)
            self.store.swap(name, only=None if changed else text_alone)

        return before_step
