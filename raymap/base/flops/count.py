"""FLOPs of a base's denoiser and decoder, counted from the shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raymap.base.families.family import Family
from raymap.base.flops.convolutional import count_convolutional
from raymap.base.flops.transformer import count_transformer
from raymap.base.header import Shapes


@dataclass(frozen=True)
class Flops:
    """FLOPs of one image, two for each multiplication and addition: of one denoiser pass, and of decoding."""

    denoiser: float
    decoder: float

    def image(self, steps: int, passes: int) -> float:
        """Return the FLOPs of drawing an image; guidance runs the denoiser twice in every step."""
        return steps * passes * self.denoiser + self.decoder


def count_flops(
    family: Family,
    denoiser: Shapes,
    autoencoder: Shapes,
    latents: tuple[int, int],
    tokens: int,
    config: Mapping[str, Any] | None = None,
) -> Flops:
    """Count the FLOPs of components whose weights have these shapes.

    Convolutions and matrix products are counted, those of attention too; element-wise operations are not.

    Args:
        latents: their height and width.
        tokens: how many of a prompt the denoiser reads, padding included.
        config: the denoiser's configuration, from which a transformer's patch size follows.
    """
    parts = ("decoder.", "post_quant_conv.")
    decoder = {name.removeprefix("decoder."): shape for name, shape in autoencoder.items() if name.startswith(parts)}
    decoding = count_convolutional(family, decoder, latents, tokens)
    if "conv_in.weight" in denoiser:
        return Flops(count_convolutional(family, denoiser, latents, tokens), decoding)
    return Flops(count_transformer(family, denoiser, config or {}, latents, tokens), decoding)
