"""What a run will take, before any of it is done: images, bytes, hours of a device, money.

FLOPs are counted from the shapes of the base's own denoiser and decoder, attention included. Hours follow
from a device's peak (dense, by its maker's data sheet) and the share of it that drawing reaches: on GPUs SHARE, what
the best published batched SD 1.5 sampling reaches on an A100; on a CPU, CPU_SHARE of the speed of its matrix products,
measured on the spot. They are estimates: scoring, start-up and waiting for nodes are not in them. Training is done in
float32 whatever a study draws in; class pictures for prior preservation and adapters' samples count as training.
"""

from __future__ import annotations

from dataclasses import dataclass

from raymap.base.flops import PEAK_TFLOPS, flops
from raymap.base.folder import picture_side
from raymap.base.processor import matrix_speed
from raymap.base.skeleton import skeleton_of
from raymap.driver.prepare import Prepared
from raymap.personalize.orders import SAMPLES, together
from raymap.study.model import SamplerSettings

USUAL = "A100"
SHARE = 0.4
CPU_SHARE = 0.6
TRAINING_PASSES = 2.1
"""A training step's FLOPs over those of a forward pass: 2.07 to 2.13 with Stable Diffusion 1.5, as torch counts them.

Backward costs as much as forward, attention's part twice as much; frozen weights ask for no gradient of their own.
"""
PNG_BYTES = 2.0
"""Bytes a pixel of a lossless RGB picture: three when it is noise."""
ROW_BYTES = 400 + 4 * 768
"""Bytes of an image's scores and of its CLIP vector."""


@dataclass(frozen=True)
class Cost:
    """What a run takes: `drawn` of `images` are not proved equal; hours are those of one device, named in `on`."""

    images: int
    drawn: int
    bytes: int
    drawing_h: float
    training_h: float
    on: str

    @property
    def hours(self) -> float:
        """Hours of one device; of several, each takes its share."""
        return self.drawing_h + self.training_h

    def sentence(self, price: float | None = None) -> str:
        """Return the cost in words; `price` is that of a device's hour."""
        said = (
            f"estimate: {self.drawn} images to draw, {_size(self.bytes)} on disk; {self.drawing_h:.3g} h of drawing "
            f"and {self.training_h:.3g} h of training on one {self.on}"
        )
        return said if price is None else f"{said}; at {price:g} an hour: {self.hours * price:.2f}"


def estimate(prepared: Prepared) -> Cost:
    """Estimate a study's cost from nothing: what its run folder already holds is not looked at."""
    study = prepared.study
    base_pictures = len(study.prompts) * len(study.seeds)
    varied = prepared.variants * base_pictures
    drawn = prepared.images - prepared.proved + varied
    drawing_speed, training_speed, on = _speeds(prepared)
    images = prepared.images + varied
    cells = len(study.prompts) * (len(prepared.orders) + len(prepared.brought) + prepared.variants)
    pictures = drawn if study.images == "all" else min(drawn, base_pictures + cells)
    skeleton = skeleton_of(prepared.base)
    adapters = sum(order.size(skeleton) for order in prepared.orders)
    return Cost(
        images=images,
        drawn=drawn,
        bytes=int(pictures * PNG_BYTES * picture_side(prepared.base) ** 2) + images * ROW_BYTES + adapters,
        drawing_h=drawn * _picture(prepared, study.sampler) / drawing_speed / 3600,
        training_h=_training(prepared) / training_speed / 3600,
        on=on,
    )


def _picture(prepared: Prepared, sampler: SamplerSettings) -> float:
    """Return the FLOPs of drawing one picture; guidance asks the denoiser twice a step."""
    denoiser, decoder = flops(prepared.base)
    return sampler.steps * (2 if sampler.guidance_scale > 1 else 1) * denoiser + decoder


def _training(prepared: Prepared) -> float:
    """Return the FLOPs of all trainings: their steps, and the pictures that they draw with the default sampler."""
    denoiser, _ = flops(prepared.base)
    passes, pictures = 0.0, 0
    trained = tuple(order for order in prepared.orders if order.subject)
    for group in together(trained, prepared.study.resources.train_together):
        recipe = group[0].recipe
        passes += TRAINING_PASSES * len(group) * recipe.steps * recipe.batch_size * (2 if recipe.prior_weight else 1)
        pictures += SAMPLES * len(group)
        if recipe.prior_weight:
            pictures += recipe.class_images * len({order.class_prompt for order in group})
    return passes * denoiser + pictures * _picture(prepared, SamplerSettings())


def _speeds(prepared: Prepared) -> tuple[float, float, str]:
    """Return the FLOP/s of drawing and of training, and what they are reckoned for."""
    resources = prepared.study.resources
    if resources.device == "cpu":
        speed = CPU_SHARE * matrix_speed(resources.threads_per_worker)
        return speed, speed, f"worker like this machine ({resources.threads_per_worker} threads)"
    kind = (resources.accelerator_type or USUAL).partition("-")[0]
    known = kind if kind in PEAK_TFLOPS else USUAL
    single, half = (SHARE * 1e12 * peak for peak in PEAK_TFLOPS[known])
    on = f"{known} GPU at {SHARE:.0%} of its {prepared.study.dtype} peak"
    if prepared.study.dtype == "float32":
        return single, single, on
    return half, single, f"{on} (in training of its float32 peak)"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
