"""Trains adapters, one after another, on one device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from raymap.adapters.folder import write_card
from raymap.diffusion.base import load
from raymap.personalize.orders import AdapterOrder
from raymap.personalize.references import read_reference
from raymap.personalize.training import Step


class Trainer:
    """One base model on one device, personalized again and again from its pristine weights."""

    def __init__(self, base: Path, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.pipeline = load(base, device)

    def train(self, order: AdapterOrder, folder: Path) -> Iterator[Step]:
        """Train an order into its adapter folder, yielding progress; the card is written last."""
        losses, images = [], None
        if order.subject is not None:
            size = self.pipeline.vae.config.sample_size
            images = np.stack([read_reference(path, size) for path in order.subject.references])
        for step in order.train(self.pipeline, images, folder):
            losses.append((step.done, step.loss))
            yield step
        write_card(folder, order.card(folder, losses))
