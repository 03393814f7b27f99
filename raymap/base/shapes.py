"""Names and shapes of a base's weights, from the headers of its files: no weight is read, and torch is not loaded."""

from __future__ import annotations

import importlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

from raymap.base.header import Shapes, read_header
from raymap.errors import InputError

INDEX = "model_index.json"
"""Names a base's pipeline and the class of each of its components."""
PREFIXES = {"CLIPTextModel": "text_model."}
"""What names in the files of a class may start with, and names in the loaded component do not."""
RENAMED = {
    "Qwen2_5_VLForConditionalGeneration": (
        (r"model\.(?!language_model\.|visual\.)", "model.language_model."),
        (r"visual\.", "model.visual."),
    ),
    "Mistral3ForConditionalGeneration": (
        (r"language_model\.model\.", "model.language_model."),
        (r"language_model\.lm_head\.", "lm_head."),
        (r"(vision_tower|multi_modal_projector)\.", r"model.\1."),
    ),
}
"""How names in the files of other classes begin, and what transformers calls them once they are loaded."""
FILES = ("diffusion_pytorch_model*.safetensors", "model*.safetensors")
"""A component's weight files as diffusers and transformers name them: one, several shards, or variants of one shape."""
TABLE = "shapes.json"
"""A folder of configurations may have this table of the shapes of its components' weights, which spares building them.

Weights of one shape whose names differ by numbers share an entry: `blocks.{0-18}.attn.to_q.weight` stands for nineteen.
"""
_RANGE = re.compile(r"\{(\d+)-(\d+)\}")


def shapes_of(folder: Path, component: str) -> Shapes:
    """Return the shapes of a component's parameters, by the names that the loaded component has.

    Those of a component without safetensors files are read from a table, or it is built without storage, as its
    configuration says.

    Args:
        folder: a base's, with a folder for each component.
        component: one that has weights, as `unet`.

    Raises:
        InputError: a file whose header cannot be read.
    """
    files = weight_files(folder, component)
    check_shards(folder / component)
    if not files:
        table = folder / TABLE
        return read_table(table, component) if table.is_file() else built(folder, component)
    shapes: Shapes = {}
    for path in files:
        shapes |= read_header(path).shapes
    kind = class_of(folder, component)
    return {loaded(kind, name): shape for name, shape in shapes.items() if not name.endswith(".position_ids")}


def loaded(kind: str, name: str) -> str:
    """Return what a parameter is called in a loaded component of a class, by its name in a file."""
    for beginning, own in RENAMED.get(kind, ()):
        if re.match(beginning, name):
            return re.sub(f"^{beginning}", own, name)
    return name.removeprefix(PREFIXES.get(kind, ""))


def weight_files(folder: Path, component: str) -> list[Path]:
    """Return a component's safetensors files."""
    return sorted({path for pattern in FILES for path in (folder / component).glob(pattern)})


def check_shards(folder: Path) -> None:
    """Check that all files are there into which a component's weights were divided.

    Raises:
        InputError: one is missing.
    """
    for index in sorted(folder.glob("*.safetensors.index.json")):
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(name for name in named if not (folder / name).is_file()):
            problem = f"lacks {missing[0]}, which {index.name} names"
            raise InputError(str(folder), problem, "fetch the base again, all of its files")


def index_of(folder: Path) -> dict[str, Any]:
    """Return what a base's model_index.json says."""
    index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return index


def class_of(folder: Path, component: str) -> str:
    """Return the name of a component's class."""
    return str(index_of(folder)[component][1])


def config_of(folder: Path, component: str) -> dict[str, Any]:
    """Return a component's configuration."""
    config: dict[str, Any] = json.loads((folder / component / "config.json").read_text(encoding="utf-8"))
    return config


def read_table(path: Path, component: str) -> Shapes:
    """Return the shapes of a component's weights from a table."""
    entries: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))[component]
    return {name: tuple(shape) for entry, shape in entries.items() for name in _names(entry)}


def _names(entry: str) -> list[str]:
    """Return the names that an entry of a table stands for."""
    between = _RANGE.split(entry)[::3]
    spans = (range(int(first), int(last) + 1) for first, last in _RANGE.findall(entry))
    return [
        "".join(part for pair in itertools.zip_longest(between, map(str, numbers), fillvalue="") for part in pair)
        for numbers in itertools.product(*spans)
    ]


def built(folder: Path, component: str) -> Shapes:
    """Return the shapes of a component that is built on torch's meta device from its configuration."""
    import torch  # here, because a base that has safetensors files is looked at without it

    library, name = index_of(folder)[component]
    kind: Any = getattr(importlib.import_module(library), name)
    with torch.device("meta"):
        if library == "transformers":
            module = kind(kind.config_class.from_pretrained(folder / component))
        else:
            module = kind.from_config(kind.load_config(folder / component))
    return shapes_in(module)


def shapes_in(module: Any) -> Shapes:
    """Return the shapes of a loaded component's parameters."""
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
