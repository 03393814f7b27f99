"""What a run will take, before any of it is done: images, bytes, hours of a device, money.

FLOPs are counted from the shapes of the base's own denoiser and decoder, attention included; hours follow from what the
device reaches (raymap.base.throughput). They are estimates: scoring, start-up and waiting for nodes are left out. The
class images of prior preservation and the samples of trained adapters count as training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raymap.base.model import Base
from raymap.base.throughput import device_memory, throughput
from raymap.driver.prepare import Prepared
from raymap.personalize.orders import SAMPLES, AdapterOrder, together
from raymap.study.model import SamplerSettings

TRAINING_PASSES = 2.1
"""A training step's FLOPs over those of a forward pass: 2.07 to 2.13 with Stable Diffusion 1.5, as torch counts them.

Backward costs as much as forward, attention's part twice as much; frozen weights ask for no gradient of their own.
"""
PNG_BYTES = 2.0
"""Bytes per pixel of a lossless RGB image; noise takes three."""
ROW_BYTES = 400 + 4 * 768
"""Bytes of an image's scores and of its CLIP vector."""


@dataclass(frozen=True)
class Cost:
    """What a run takes: `drawn` of `images` are not proved equal; hours are those of one device, which `on` names.

    `price` is that of a device's hour. `memory` are the bytes that a worker's device needs for drawing at most, without
    judges, and `room` are those that it has; None on a CPU.
    """

    images: int
    drawn: int
    bytes: int
    drawing_h: float
    training_h: float
    on: str
    price: float | None = None
    memory: int = 0
    room: int | None = None

    @property
    def hours(self) -> float:
        """Hours of one device; several devices share them."""
        return self.drawing_h + self.training_h

    @property
    def sentence(self) -> str:
        """The cost in words."""
        there = "" if self.room is None else f" of {_size(self.room)}"
        said = (
            f"estimate: {self.drawn} images to draw, {_size(self.bytes)} on disk; a worker draws in "
            f"{_size(self.memory)}{there} of memory; {self.drawing_h:.3g} h of drawing "
            f"and {self.training_h:.3g} h of training on one {self.on}"
        )
        return said if self.price is None else f"{said}; at {self.price:g} an hour: {self.hours * self.price:.2f}"


def estimate(prepared: Prepared, price: float | None = None) -> Cost:
    """Estimate what a study takes from nothing: its run folder is not looked at; `price` is that of a device's hour."""
    study, base = prepared.study, prepared.base
    each, variants = len(study.prompts) * len(study.seeds), len(prepared.variants)
    drawn = prepared.images - prepared.proved + variants * each
    images = prepared.images + variants * each
    cells = len(study.prompts) * (prepared.adapters + variants)
    kept = drawn if study.images == "all" else min(drawn, each + cells)
    adapters = sum(order.size(base.skeleton) for order in prepared.orders)
    height, width = prepared.size
    drawing = drawn * _image_flops(base, study.sampler, prepared.size)
    trained = [order for order in prepared.orders if order.subject]
    training = _training_flops(base, trained, study.resources.train_together)
    speed = throughput(study.resources, study.dtype)
    return Cost(
        images=images,
        drawn=drawn,
        bytes=int(kept * PNG_BYTES * height * width) + images * ROW_BYTES + adapters,
        drawing_h=drawing / speed.drawing / 3600,
        training_h=training / speed.training / 3600,
        on=speed.device,
        price=price,
        memory=prepared.resident.needed(study),
        room=device_memory(study.resources),
    )


def _image_flops(base: Base, sampler: SamplerSettings, size: tuple[int, int]) -> float:
    return base.flops(size).image(sampler.steps, base.family.passes(sampler.guidance_scale))


def _training_flops(base: Base, orders: Sequence[AdapterOrder], subjects: int) -> float:
    """Return the FLOPs of all trainings: their steps, and the images that they draw with the default sampler."""
    image = _image_flops(base, base.sampler(SamplerSettings()), base.size)
    passes, images = 0.0, 0
    for group in together(orders, subjects):
        recipe = group[0].recipe
        passes += TRAINING_PASSES * len(group) * recipe.steps * recipe.batch_size * (2 if recipe.prior_weight else 1)
        images += SAMPLES * len(group)
        if recipe.prior_weight:
            images += recipe.class_images * len({order.class_prompt for order in group})
    return passes * base.flops().denoiser + images * image


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
