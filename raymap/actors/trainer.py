"""Trains adapters, one after another, on one device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from raymap.adapters.folder import write_card
from raymap.adapters.lora import LORA_FILE
from raymap.diffusion.base import load
from raymap.personalize.lora import Step, add_lora, save_lora, train_lora
from raymap.personalize.orders import AdapterOrder
from raymap.personalize.references import read_reference


class Trainer:
    """One base model on one device, personalized again and again from its pristine weights."""

    def __init__(self, base: Path, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.pipeline = load(base, device)

    def train(self, order: AdapterOrder, folder: Path) -> Iterator[Step]:
        """Train an order into its adapter folder, yielding progress; the card is written last."""
        losses = []
        add_lora(self.pipeline, order.recipe)
        if order.subject is not None:
            size = self.pipeline.vae.config.sample_size
            images = np.stack([read_reference(path, size) for path in order.subject.references])
            prompt = order.recipe.instance_prompt(order.subject)
            for step in train_lora(self.pipeline, images, prompt, order.recipe):
                losses.append((step.done, step.loss))
                yield step
        folder.mkdir(parents=True, exist_ok=True)
        save_lora(self.pipeline, folder)
        write_card(folder, order.card(folder / LORA_FILE, losses))
