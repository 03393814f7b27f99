"""How much of a device's memory drawing takes, estimated from the shapes of weights.

Weights are counted exactly. What is alive at once while a layer computes is taken as LIVE times the largest tensor that
goes into or comes out of a layer: 3.0 to 3.5 of them were counted for Stable Diffusion's UNet and decoder, Stable
Diffusion 3 and FLUX.1, with attention that keeps no map. Judges and the device's own context come on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raymap.base.families.family import Family
from raymap.base.flops.convolutional import widest_map
from raymap.base.flops.transformer import widest_sequence
from raymap.base.header import Shapes
from raymap.study.model import MemorySettings

LIVE = 4
"""How many tensors of the largest one's size are alive at once, with a margin."""
TILE = 512
"""The side in pixels of a decoder's tile, as in most of diffusers' autoencoders."""
BITS = {"none": None, "int8": 8.0, "nf4": 4.5}
"""Bits per number of a quantised matrix; nf4 has a scale for every 64 numbers."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a base's parts, of what is alive while a batch is denoised and decoded, and of resident adapters."""

    denoiser: int
    encoders: tuple[int, ...]
    autoencoder: int
    denoising: int
    decoding: int
    adapters: int

    def needed(self, offload: str) -> int:
        """Return the bytes that a device needs at most, by what waits in the host's memory meanwhile."""
        encoders = sum(self.encoders)
        if offload == "model":
            encoder = max(self.encoders, default=0)
            return self.adapters + max(self.denoiser + self.denoising, self.autoencoder + self.decoding, encoder)
        stays = self.denoiser + self.autoencoder + self.adapters
        if offload == "encoders":
            return stays + max(self.denoising, self.decoding, encoders)
        return stays + encoders + max(self.denoising, self.decoding)


def size_of(dtype: str) -> int:
    """Return how many bytes a number takes; `dtype` is torch's name of it."""
    return 4 if dtype == "float32" else 2


def weight_bytes(shapes: Shapes, dtype: str, quantize: str = "none") -> int:
    """Return the bytes of a component's weights; quantised matrices are stored in fewer bits."""
    bits = BITS[quantize]
    each = 8.0 * size_of(dtype)
    counts = ((math.prod(shape), bits if bits and len(shape) == 2 else each) for shape in shapes.values())
    return round(sum(count * own / 8 for count, own in counts))


def denoising_bytes(
    family: Family, shapes: Shapes, config: Mapping[str, Any], latents: tuple[int, int], text: int, dtype: str
) -> int:
    """Return the bytes that are alive in one pass of a denoiser for one image.

    Args:
        text: how many tokens of a prompt are read.
    """
    if "conv_in.weight" in shapes:
        return LIVE * size_of(dtype) * widest_map(shapes, latents)
    return LIVE * size_of(dtype) * widest_sequence(family, shapes, config, latents, text)


def decoding_bytes(
    shapes: Shapes, config: Mapping[str, Any], size: tuple[int, int], latents: tuple[int, int], dtype: str, tiled: bool
) -> int:
    """Return the bytes that are alive while one image of a size in pixels is decoded."""
    decoder = {name.removeprefix("decoder."): s for name, s in shapes.items() if name.startswith("decoder.")}
    # Such an autoencoder overflows in float16, and pipelines have it decode in float32.
    each = 4 if config.get("force_upcast") and dtype == "float16" else size_of(dtype)
    part = min(1.0, TILE**2 / math.prod(size)) if tiled else 1.0
    return round(LIVE * each * part * widest_map(decoder, latents))


def batch_memory(one: Memory, batch: int, passes: int, settings: MemorySettings) -> Memory:
    """Return what a batch takes, of what one image takes; guidance's passes are computed together."""
    decoded = batch if settings.decode == "whole" else 1
    return Memory(
        one.denoiser,
        one.encoders,
        one.autoencoder,
        one.denoising * batch * passes,
        one.decoding * decoded,
        one.adapters,
    )
