"""FLOPs of a base's denoiser and decoder, counted from the shapes of their weights."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from raymap.base.shapes import Shapes, shapes_of

TOKENS = 77
"""A prompt's positions, as CLIP's text encoders have them."""
OF_PROMPT = ("attn2.to_k.weight", "attn2.to_v.weight")
_BLOCK = re.compile(r"(?P<part>down|mid|up)_block(?:s\.(?P<number>\d+))?\.(?P<sampler>(?:down|up)samplers\.)?")


def flops(base: Path) -> tuple[float, float]:
    """Return the FLOPs (two a multiplication and addition) of one image's denoiser pass and of its decoding.

    Convolutions and matrix products are counted, attention's too; what is done number by number is not.
    """
    side = json.loads((base / "unet" / "config.json").read_text(encoding="utf-8"))["sample_size"]
    return counted(shapes_of(base, "unet"), shapes_of(base, "vae"), side)


def counted(unet: Shapes, vae: Shapes, side: int) -> tuple[float, float]:
    """Return the FLOPs as `flops` does, of components whose weights have these shapes, for latents of a side."""
    parts = ("decoder.", "post_quant_conv.")
    decoder = {name.removeprefix("decoder."): shape for name, shape in vae.items() if name.startswith(parts)}
    return _count(unet, side), _count(decoder, side)


def _count(shapes: Shapes, side: int) -> float:
    """Return the FLOPs of blocks on latents of a side: a weight of n numbers that is used at m places takes 2nm.

    Attention of m places to k, c wide over all heads, takes 2mkc for the map, and 2mkc for what is gathered by it.
    """
    matrices = {name: shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) > 1}
    down, up = (sum(f".{kind}samplers." in name for name in matrices) for kind in ("down", "up"))
    total = 0
    for name, shape in matrices.items():
        places = round(side * 2.0 ** _level(name, down, up)) ** 2
        # The timestep's embedding is used at one place, what makes keys and values of a prompt at each of its tokens.
        uses = 1 if "emb" in name else TOKENS if name.endswith(OF_PROMPT) else places
        total += 2 * math.prod(shape) * uses
        if name.endswith(("to_q.weight", "query.weight")):
            total += 4 * places * (TOKENS if "attn2" in name else places) * shape[0]
    return float(total)


def _level(name: str, down: int, up: int) -> int:
    """Return how often the latents' side has been doubled where a weight is used; halving counts as minus one.

    Args:
        down: how many layers halve it in all.
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


PEAK_TFLOPS = {
    "T4": (8.1, 65.0), "V100": (15.7, 125.0), "A10G": (31.2, 70.0), "L4": (30.3, 121.0), "L40S": (91.6, 362.0),
    "A100": (19.5, 312.0), "H100": (67.0, 989.0), "H200": (67.0, 989.0),
}  # fmt: skip
"""Dense peaks by Ray's names of accelerators: float32 without TF32, and 16-bit."""
