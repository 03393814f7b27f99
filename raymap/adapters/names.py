"""What files call the modules of a base: the base's own names and those of the models' first publications.

The latter are asked of the base's own structure, so that they hold for every size of a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raymap.adapters.tables import TABLES, Table

Names = Mapping[str, tuple["Piece", ...]]
"""Where a module of a file lies, by its dotted name without the component's prefix."""


@dataclass(frozen=True)
class Piece:
    """A module of the base that gets rows of a file's module: the next ones, as many as it has.

    `swapped` says that its two halves are the other way round in the file.
    """

    module: str
    swapped: bool = False


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
"""What CompVis's and Stability's UNets call layers, by diffusers' names (https://github.com/CompVis/latent-diffusion)."""


def own_names(modules: Iterable[str]) -> dict[str, tuple[Piece, ...]]:
    """Return the base's own names of a component's modules."""
    return {module: (Piece(module),) for module in modules}


def first_names(pipeline: str, modules: Iterable[str]) -> dict[str, tuple[Piece, ...]]:
    """Return the names of a denoiser's modules in the model's first publication, where they are known here.

    Args:
        pipeline: the class of the pipeline.
        modules: diffusers' names of the denoiser's modules.
    """
    own = set(modules)
    if any(name.startswith("down_blocks.") for name in own):
        return {theirs: (Piece(module),) for module, theirs in _unet(own).items()}
    return _tabled(TABLES.get(pipeline, {}), own)


def _tabled(table: Table, own: set[str]) -> dict[str, tuple[Piece, ...]]:
    numbers = sorted({number for name in own for number in re.findall(r"\.(\d+)\.", name)}, key=int)
    found = {}
    for theirs, names in table.items():
        for number in numbers if "#" in theirs else ("",):
            pieces = tuple(Piece(name.lstrip("~").replace("#", number), name.startswith("~")) for name in names)
            if all(piece.module in own for piece in pieces):
                found[theirs.replace("#", number)] = pieces
    # The last block of Stable Diffusion 3 ends its text with a norm whose scale and shift diffusers swaps.
    for theirs, pieces in list(found.items()):
        if theirs.endswith("context_block.adaLN_modulation.1") and _is_last(pieces[0].module, own):
            found[theirs] = (Piece(pieces[0].module, swapped=True),)
    return found


def _is_last(module: str, own: set[str]) -> bool:
    return module.replace("norm1_context.linear", "ff_context.net.2") not in own


def _unet(own: set[str]) -> dict[str, str]:
    """Return CompVis's names of a UNet's modules by diffusers' names."""
    blocks = _blocks(own)
    named = {module: theirs for module, theirs in UNET.items() if module in own}
    for module in own:
        match = re.fullmatch(r"((?:down_blocks|up_blocks)\.\d+|mid_block)\.(\w+\.\d+)\.(.+)", module)
        place = blocks.get(f"{match[1]}.{match[2]}") if match else None
        if match is None or place is None:
            continue
        kind = match[2].partition(".")[0]
        inner = RESNET.get(match[3]) if kind == "resnets" else match[3]
        inner = {"downsamplers": "op"}.get(kind, inner)
        if inner is not None:
            named[module] = f"{place}.{inner}"
    return named


def _blocks(own: set[str]) -> dict[str, str]:
    """Return CompVis's name of each resnet, attention, downsampler and upsampler of a UNet."""
    parts = {m[1] for name in own if (m := re.match(r"((?:(?:down|up)_blocks\.\d+|mid_block)\.\w+\.\d+)\.", name))}
    found = {
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    number = 1
    for block in _numbered(parts, "down_blocks"):
        for layer in range(_count(parts, block)):
            found[f"{block}.resnets.{layer}"] = f"input_blocks.{number}.0"
            found[f"{block}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if f"{block}.downsamplers.0" in parts:
            found[f"{block}.downsamplers.0"] = f"input_blocks.{number}.0"
            number += 1
    number = 0
    for block in _numbered(parts, "up_blocks"):
        for layer in range(_count(parts, block)):
            found[f"{block}.resnets.{layer}"] = f"output_blocks.{number}.0"
            found[f"{block}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        follows = 2 if any(part.startswith(f"{block}.attentions.") for part in parts) else 1
        found[f"{block}.upsamplers.0"] = f"output_blocks.{number - 1}.{follows}"
    return found


def _numbered(parts: set[str], kind: str) -> list[str]:
    numbers = {int(part.split(".")[1]) for part in parts if part.startswith(f"{kind}.")}
    return [f"{kind}.{number}" for number in sorted(numbers)]


def _count(parts: set[str], block: str) -> int:
    return sum(part.startswith(f"{block}.resnets.") for part in parts)
