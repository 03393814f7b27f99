"""Where the modules that a LoRA-like file names lie in a base: in any community's spelling, each with all of its rows.

A name is looked up among the base's own and those of the model's first publication (`names`). Of a kind of base that
raymap does not describe, diffusers' converters are asked about what is left (`converter`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from raymap.adapters.converter import Rows, asked
from raymap.adapters.names import Names, Piece, first_names, own_names
from raymap.base.skeleton import Skeleton

Extent = tuple[int, ...]
"""The shape of a module's ΔW, as far as a file tells it: (out, in, …), or (out,) of biases and norms alone."""

WRAPPERS = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "lycoris.",
    "lora_unet_",
    "lora_transformer_",
    "lora_prior_unet_",
    "lycoris_",
    "oft_unet_",
)
"""What trainers put before the names of a denoiser's modules; some of them name a text encoder's the same way."""
ENCODERS = (
    (r"text_encoder\.|(text_encoders\.)?clip_l\.(transformer\.)?|lora_te1?_", 0),
    (r"text_encoder_2\.|(text_encoders\.)?clip_g\.(transformer\.)?|lora_te2_", 1),
    (r"text_encoder_3\.|lora_te3_", 2),
    (r"(text_encoders\.)?t5(xxl)?\.(transformer\.)?", -1),
)  # fmt: skip
"""What stands before the names of a text encoder's modules, and which of the base's encoders it is."""


LANGUAGE = r"text_encoders\.\w+\.(transformer\.)?"
"""What ComfyUI puts before the names of other text encoders' modules, `text_encoders.qwen3_4b.` for example."""


@dataclass(frozen=True)
class Place:
    """A module of the base and which rows of a file's module it gets; None: all of them as they are."""

    module: str
    rows: torch.Tensor | None = None


Places = Mapping[str, tuple[Place, ...]]


class Map:
    """The names by which files may call a base's modules."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        modules: dict[str, list[str]] = {part: [] for part in skeleton.parts.adapted}
        for weight in skeleton.shapes:
            component, _, name = weight.partition(".")
            module, _, kind = name.rpartition(".")
            if kind == "weight" or (kind == "bias" and f"{component}.{module}.weight" not in skeleton.shapes):
                modules[component].append(module)
        self._names: dict[str, Names] = {}
        self._flat: dict[str, dict[str, str]] = {}
        for component, own in modules.items():
            names = own_names(own)
            if component in skeleton.parts.encoders:
                prefix = skeleton.prefixes.get(component) or "text_model."
                names |= {_turned(name, prefix): pieces for name, pieces in names.items()}
            else:
                first = first_names(skeleton.family.class_name, own)
                names = {name: pieces for name, pieces in (first | names).items() if first.get(name) != ()}
            self._names[component] = names
            self._flat[component] = {name.replace(".", "_"): name for name in names}

    def find(self, spelled: str, extent: Extent, hint: str | None) -> tuple[Place, ...] | None:
        """Return where a module lies that a file spells so; None where no name is known that fits.

        Args:
            hint: the component that the file's folder is of, if it says so.
        """
        fitting: tuple[Place, ...] | None = None
        for component, name in self._readings(spelled, hint):
            pieces = self._pieces(component, name)
            if pieces is None:
                continue
            places = self._cut(component, pieces, extent)
            if places is not None:
                return places
            fitting = fitting or tuple(Place(f"{component}.{piece.module}") for piece in pieces)
        return fitting if fitting and len(fitting) == 1 else None

    def _pieces(self, component: str, name: str) -> tuple[Piece, ...] | None:
        names = self._names[component]
        return names.get(name) or names.get(self._flat[component].get(name, ""))

    def _readings(self, spelled: str, hint: str | None) -> Iterator[tuple[str, str]]:
        """Yield which module of which component a name may mean, the likeliest first."""
        encoders, denoisers = self._skeleton.parts.encoders, self._skeleton.parts.denoisers
        name = spelled
        while True:
            for pattern, number in ENCODERS:
                if (match := re.match(pattern, name)) and number < len(encoders):
                    rest = name[match.end() :].removeprefix("base_model.model.")
                    yield encoders[number], rest
                elif match and number == 2 and encoders:  # kohya numbers FLUX.1's T5 as Stable Diffusion 3's
                    yield encoders[-1], name[match.end() :]
            for component in denoisers:
                if name.startswith(f"{component}."):
                    yield component, name.removeprefix(f"{component}.")
            for component in (hint,) if hint else (*denoisers, *encoders):
                yield component, name
            wrapper = next((known for known in WRAPPERS if name.startswith(known)), None)
            language = re.match(LANGUAGE, name) if wrapper is None else None
            if wrapper is None and language is None:
                return
            name = name[language.end() :] if language else name.removeprefix(wrapper or "")

    def _cut(self, component: str, pieces: tuple[Piece, ...], extent: Extent) -> tuple[Place, ...] | None:
        """Return the places of pieces that get a module's rows one after another; None where its sizes differ."""
        shapes = [self._shape(f"{component}.{piece.module}") for piece in pieces]
        if len(pieces) == 1 and not pieces[0].swapped:
            fits = _fits(shapes[0], extent)
            return (Place(f"{component}.{pieces[0].module}"),) if fits else None
        if not extent or sum(shape[0] for shape in shapes) != extent[0]:
            return None
        if any(not _fits(shape, (shape[0], *extent[1:])) for shape in shapes):
            return None
        places, first = [], 0
        for piece, shape in zip(pieces, shapes, strict=True):
            rows = torch.arange(first, first + shape[0])
            first += shape[0]
            places.append(Place(f"{component}.{piece.module}", rows.roll(shape[0] // 2) if piece.swapped else rows))
        return tuple(places)

    def _shape(self, module: str) -> tuple[int, ...]:
        shapes = self._skeleton.shapes
        return shapes.get(f"{module}.weight") or shapes[f"{module}.bias"]


def place(modules: Mapping[str, Extent], skeleton: Skeleton, hint: str | None = None) -> tuple[Places, list[str]]:
    """Return where the modules of a file lie, and those that could not be placed with all of their rows.

    Args:
        modules: their extents, by names as the file spells them.
        hint: the component that the file's folder is of, if it says so.
    """
    known = Map(skeleton)
    found: dict[str, tuple[Place, ...]] = {}
    for spelled, extent in modules.items():
        places = known.find(spelled, extent, hint)
        if places is not None:
            found[spelled] = places
    left = {spelled: extent for spelled, extent in modules.items() if spelled not in found}
    if left and not skeleton.family.known:
        for spelled, rows in asked(left, skeleton).items():
            if _is_whole(rows, left[spelled], skeleton):
                found[spelled] = tuple(Place(module, index) for module, index in rows)
    return found, [spelled for spelled in modules if spelled not in found]


def _is_whole(rows: Rows, extent: Extent, skeleton: Skeleton) -> bool:
    """Return whether all rows of a module were placed, each once, and each part of the base got all of its own."""
    arrived = torch.cat([index for _, index in rows]).sort().values
    if not torch.equal(arrived, torch.arange(extent[0])):
        return False
    shapes = [skeleton.shapes.get(f"{module}.weight") for module, _ in rows]
    return all(shape is not None and shape[0] == len(index) for shape, (_, index) in zip(shapes, rows, strict=True))


def _fits(shape: tuple[int, ...], extent: Extent) -> bool:
    if not extent:
        return True
    return shape[0] == extent[0] and (len(extent) == 1 or math.prod(shape[1:]) == math.prod(extent[1:]))


def _turned(name: str, prefix: str) -> str:
    """Return a text encoder's name with the prefix that files have and it lacks, or the other way round."""
    return name.removeprefix(prefix) if name.startswith(prefix) else prefix + name
