"""FLOPs of a base's denoiser and decoder, both of them convolutional, counted from the shapes of their weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from raymap.base.families.family import Family
from raymap.base.header import Shapes

_BLOCK = re.compile(r"(?P<part>down|mid|up)_block(?:s\.(?P<number>\d+))?\.(?P<sampler>(?:down|up)samplers\.)?")


@dataclass(frozen=True)
class Flops:
    """FLOPs of one image, two for each multiplication and addition: of one denoiser pass, and of decoding."""

    denoiser: float
    decoder: float

    def image(self, steps: int, passes: int) -> float:
        """Return the FLOPs of drawing an image; guidance runs the denoiser twice in every step."""
        return steps * passes * self.denoiser + self.decoder


def count_flops(family: Family, denoiser: Shapes, autoencoder: Shapes, side: int, tokens: int) -> Flops:
    """Count the FLOPs of components whose weights have these shapes.

    Convolutions and matrix products are counted, those of attention too; element-wise operations are not.

    Args:
        side: that of the latents.
        tokens: how many of a prompt the denoiser reads, padding included.
    """
    parts = ("decoder.", "post_quant_conv.")
    decoder = {name.removeprefix("decoder."): shape for name, shape in autoencoder.items() if name.startswith(parts)}
    return Flops(_count(family, denoiser, side, tokens), _count(family, decoder, side, tokens))


def _count(family: Family, shapes: Shapes, side: int, tokens: int) -> float:
    """Return the FLOPs of blocks on latents of a side: a weight of n numbers that is used at m places takes 2nm.

    Attention of m places to k, c wide over all heads, takes 2mkc for the map and 2mkc for what it gathers.
    """
    matrices = {name: shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) > 1}
    down, up = (sum(f".{kind}samplers." in name for name in matrices) for kind in ("down", "up"))
    of_prompt = tuple(f"{layer}.weight" for layer in family.text_keys)
    total = 0
    for name, shape in matrices.items():
        places = round(side * 2.0 ** _level(name, down, up)) ** 2
        # The timestep's embedding is used at one place, the keys and values of a prompt at each of its tokens.
        uses = 1 if "emb" in name else tokens if name.endswith(of_prompt) else places
        total += 2 * math.prod(shape) * uses
        if name.endswith(("to_q.weight", "query.weight")):
            total += (
                4
                * places
                * (tokens if family.cross_attention and family.cross_attention in name else places)
                * shape[0]
            )
    return float(total)


def _level(name: str, down: int, up: int) -> int:
    """Return how often the side of the latents has been doubled where a weight is used; a halving counts as minus one.

    Args:
        down: how many layers halve the side in all.
        up: how many double it.
    """
    block = _BLOCK.match(name)
    if block is None:
        return up - down if name.startswith("conv_out.") else 0
    sampled = int(block["sampler"] is not None)
    match block["part"]:
        case "down":
            return -int(block["number"]) - sampled
        case "up":
            return int(block["number"]) - down + sampled
    return -down
