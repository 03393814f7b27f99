"""Trains adapters, one after another, on one device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from raymap.adapters.folder import write_card
from raymap.adapters.read import read_adapter
from raymap.adapters.skeleton import skeleton_of
from raymap.adapters.store import AdapterStore
from raymap.diffusion.base import load
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.personalize.orders import AdapterOrder
from raymap.personalize.references import read_reference
from raymap.personalize.training import Step
from raymap.study import SamplerSettings

SAMPLES = 4


class Trainer:
    """One base model on one device, personalized again and again from its pristine weights."""

    def __init__(self, base: Path, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.skeleton = skeleton_of(base)
        self.pipeline = load(base, device)

    def train(self, order: AdapterOrder, folder: Path) -> Iterator[Step]:
        """Train an order into its adapter folder, yielding progress; the card is written last.

        Beside the weights lies `samples.png`: what the adapted model draws for the subject's own caption.
        """
        losses, images = [], None
        if order.subject is not None:
            size = self.pipeline.vae.config.sample_size
            images = np.stack([read_reference(path, size) for path in order.subject.references])
        for step in order.train(self.pipeline, images, folder):
            losses.append((step.done, step.loss))
            yield step
        if order.subject is not None:
            self._sample(order, folder)
        write_card(folder, order.card(folder, losses))

    def _sample(self, order: AdapterOrder, folder: Path) -> None:
        """Draw the subject's caption, seeds 0 to 3, side by side, from the files as they were written."""
        store = AdapterStore(self.pipeline)
        store.add(order.name, read_adapter(folder, self.skeleton).adapter)
        store.swap(order.name)
        captions, seeds = [order.caption] * SAMPLES, tuple(range(SAMPLES))
        pixels = draw(self.pipeline, PromptEncoder(self.pipeline, store), captions, seeds, SamplerSettings(), SAMPLES)
        store.restore()
        Image.fromarray(np.concatenate(list(pixels), 1)).save(folder / "samples.png")
