"""Trains adapters on one device, one group after another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from raymap.adapters.card import CARD, write_card
from raymap.adapters.read import read_adapter
from raymap.adapters.resident import AdapterStore
from raymap.base.device import pin
from raymap.base.model import open_base
from raymap.base.pipeline import load, usual_sampler
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.errors import DrawingError, InputError
from raymap.personalize.lessons import lesson_of, trainer_of
from raymap.personalize.orders import SAMPLES, AdapterOrder
from raymap.personalize.references.read import read_reference
from raymap.personalize.step import Step
from raymap.store.files import local_space, move_folder, remove_folder
from raymap.store.lock import check_seen


class Trainer:
    """One base model on one device, which is personalized again and again from its pristine weights."""

    def __init__(
        self, base: str | Path, threads: int, device: str, dtype: str = "float32", weights: str | None = None
    ) -> None:
        """Load the base: in bfloat16 for mixed precision, if a GPU trains with that as its study's `dtype`."""
        pin(threads)
        self.base = open_base(str(base), weights)
        mixed = device == "cuda" and dtype == "bfloat16"
        precision = torch.bfloat16 if mixed else torch.float32
        self.pipeline = load(self.base.folder, device, precision, file=self.base.file)

    def ready(self, run: Path) -> bool:
        """Return True once it can train; raise InputError if this node does not see the run folder."""
        check_seen(run)
        return True

    def train(self, orders: tuple[AdapterOrder, ...], folders: tuple[Path, ...], scratch: Path) -> Iterator[Step]:
        """Train orders of one method together, each into its adapter folder, and yield the progress.

        Beside the weights are `samples.png`, which the adapted model draws for the subject's own caption, and
        `losses.png`. The folder of an adapter appears once all of it is written; one that exists already stays.

        Args:
            orders: orders of one method and one recipe.
            folders: the adapter folders, in the same order.
            scratch: a folder for the checkpoint, from which an interrupted training of the same orders continues. It
                is deleted at the end.

        Raises:
            DrawingError: some adapters cannot be used (their values are not finite, for example); the others are there.
        """
        problems = []
        with local_space(scratch) as space:
            parts = tuple(space / order.name for order in orders)
            lessons = tuple(
                lesson_of(order, self._images(order), part) for order, part in zip(orders, parts, strict=True)
            )
            steps = []
            train = trainer_of(orders[0].trained_by)
            for step in train(self.pipeline, lessons, orders[0].recipe, scratch / _checkpoint(orders)):
                steps.append(step)
                yield step
            for k, (order, part, folder) in enumerate(zip(orders, parts, folders, strict=True)):
                try:
                    self._finish(order, part, [(step.done, step.losses[k]) for step in steps])
                except (InputError, DrawingError) as error:
                    problems.append(f"{order.name}: {error}")
                    continue
                if not (folder / CARD).exists():
                    move_folder(part, folder, last=CARD)
        remove_folder(scratch)
        if problems:
            raise DrawingError("; ".join(problems))

    def _finish(self, order: AdapterOrder, part: Path, losses: list[tuple[int, float]]) -> None:
        """Write sample images, the loss curve and the card beside an adapter's weights."""
        if order.subject is not None:
            self._sample(order, part)
            _draw_losses(losses, part / "losses.png")
        write_card(part, order.card(part, losses))

    def _images(self, order: AdapterOrder) -> np.ndarray | None:
        if order.subject is None:
            return None
        return np.stack([read_reference(path, self.base.size[0]) for path in order.subject.references])

    def _sample(self, order: AdapterOrder, folder: Path) -> None:
        """Draw the subject's caption, seeds 0 to 3 side by side, with the adapter as its files hold it."""
        store = AdapterStore(self.pipeline)
        store.add(order.name, read_adapter(folder, self.base.skeleton, method=order.trained_by).adapter)
        store.swap(order.name)
        captions, seeds = [order.caption] * SAMPLES, tuple(range(SAMPLES))
        encoder, sampler = PromptEncoder(self.pipeline, store), usual_sampler(self.pipeline)
        pixels = draw(self.pipeline, encoder, captions, seeds, sampler, SAMPLES)
        store.restore()
        Image.fromarray(np.concatenate(list(pixels), 1)).save(folder / "samples.png")


def _checkpoint(orders: tuple[AdapterOrder, ...]) -> str:
    """Return the name of the checkpoint of orders with exactly these settings."""
    return f"{hashlib.sha256(''.join(order.digest for order in orders).encode()).hexdigest()[:16]}.pt"


def _draw_losses(losses: list[tuple[int, float]], path: Path) -> None:
    """Save a plot of the loss over optimizer steps."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*losses, strict=True))
    axes.set(xlabel="optimizer step", ylabel="loss, mean over the steps since the last point", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path)
