"""FLOPs of UNets and of autoencoders' decoders, whose layers are used at every place of an image of some resolution."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from raymap.base.families.family import Family
from raymap.base.header import Shapes

_BLOCK = re.compile(r"(?P<part>down|mid|up)_block(?:s\.(?P<number>\d+))?\.(?P<sampler>(?:down|up)samplers?\.)?")
_FLAT = re.compile(r"up_blocks\.(?P<number>\d+)\.conv\.weight")
"""HunyuanImage's decoder: a flat list, in which a block of one convolution doubles the side after it."""
_STAGE = re.compile(r"up_blocks\.(?P<stage>\d+)\.(?P<number>\d+)\.")
"""A deep-compression decoder, as Sana's: a list of lists, of which the first comes last."""
_QUERIES = ("to_q.weight", "query.weight", "to_qkv.weight")


def count_convolutional(family: Family, shapes: Shapes, latents: tuple[int, int], tokens: int) -> float:
    """Return the FLOPs of blocks on latents of a size: a weight of n numbers that is used at m places takes 2nm.

    Attention of m places to k, c wide over all heads, takes 2mkc for the map and 2mkc for what it gathers. The linear
    attention of deep-compression decoders, about 1 % of their FLOPs, is left out.
    """
    matrices, places_of = _matrices(shapes), _places(shapes, latents)
    text = (*(f"{layer}.weight" for layer in family.text_keys), "encoder_hid_proj.weight")
    total = 0
    for name, shape in matrices.items():
        places = places_of(name)
        # The timestep's embedding is used at one place, the keys and values of a prompt at each of its tokens.
        uses = 1 if "emb" in name else tokens if name.endswith(text) else places
        total += 2 * math.prod(shape) * uses
        if name.endswith(_QUERIES) and not _STAGE.match(name):
            cross = family.cross_attention and family.cross_attention in name
            total += 4 * places * (tokens if cross else places) * (shape[0] // (3 if "to_qkv" in name else 1))
    return float(total)


def widest_map(shapes: Shapes, latents: tuple[int, int]) -> int:
    """Return how many numbers the largest tensor has that goes into or comes out of a layer, for one image."""
    places_of = _places(shapes, latents)
    return max(max(shape[:2]) * places_of(name) for name, shape in _matrices(shapes).items() if "emb" not in name)


def _matrices(shapes: Shapes) -> Shapes:
    """Return weights of more than one axis; convolutions over time come into play from the second frame on."""
    weights = {name: shape for name, shape in shapes.items() if name.endswith(".weight") and ".time_conv." not in name}
    return {name: shape for name, shape in weights.items() if len(shape) > 1}


def _places(shapes: Shapes, latents: tuple[int, int]) -> Callable[[str], int]:
    """Return what says at how many places of an image a weight is used, of those that are not used once."""
    level = _levels(_matrices(shapes))

    def places(name: str) -> int:
        height, width = (round(side * 2.0 ** level(name)) for side in latents)
        return height * width

    return places


def _levels(matrices: Shapes) -> Callable[[str], int]:
    """Return what says of a weight how often the side of the latents was doubled where it is used.

    A halving counts as minus one.
    """
    if any(_STAGE.match(name) for name in matrices):
        return _staged(matrices)
    if any(_FLAT.match(name) for name in matrices):
        return _flat(matrices)
    down, up = (sum(f".{kind}sampler" in name for name in matrices) for kind in ("down", "up"))

    def level(name: str) -> int:
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

    return level


def _flat(matrices: Shapes) -> Callable[[str], int]:
    doubling = [int(match["number"]) for match in map(_FLAT.match, matrices) if match]

    def level(name: str) -> int:
        if not name.startswith("up_blocks."):
            return len(doubling) if name.startswith("conv_out.") else 0
        return sum(number < int(name.split(".")[1]) for number in doubling)

    return level


def _staged(matrices: Shapes) -> Callable[[str], int]:
    last = max(int(match["stage"]) for match in map(_STAGE.match, matrices) if match)

    def level(name: str) -> int:
        match = _STAGE.match(name)
        if match is None:
            return last if name.startswith("conv_out.") else 0
        # A convolution to four times the channels comes before its pixels are laid out at twice the side.
        out, into = matrices[name][:2]
        before = name.endswith(".0.conv.weight") and out > 2 * into
        return last - int(match["stage"]) - before

    return level
