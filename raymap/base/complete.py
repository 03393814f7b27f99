"""Checks that a base's folder is whole, before anything of it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raymap.base.families.family import Family
from raymap.base.parts import Parts, parts_of
from raymap.base.shapes import check_shards, class_of, config_of, index_of, shapes_of, weight_files
from raymap.base.skeleton import table_in
from raymap.errors import InputError

AGAIN = "fetch the base again, all of its files"
WIDTHS = ("hidden_size", "d_model")
"""What transformers calls the width of a text encoder's embeddings."""


def check_folder(folder: Path, family: Family) -> None:
    """Check that every component is there with all of its weights, as its configuration says, and the scheduler fits.

    Raises:
        InputError: a component lacks its folder, configuration or weights, or a part of them; a text encoder's table is
            of another shape than its configuration says; the scheduler is for another prediction than the family's.
    """
    parts = parts_of(index_of(folder))
    for name in parts.names:
        if not any((folder / name).glob("*")):
            raise InputError(str(folder), f"lacks the folder of its {name}", AGAIN)
        if name in (*parts.adapted, "vae"):
            _check_weights(folder, name)
    for name, own in (("text encoder", parts.encoders), ("denoiser", parts.denoisers)):
        if not own:
            raise InputError(str(folder), f"its model_index.json lists no {name}", AGAIN)
    _check_encoders(folder, parts)
    if "scheduler" in parts.names:
        _check_scheduler(folder, family)


def _check_weights(folder: Path, name: str) -> None:
    own = folder / name
    if not (own / "config.json").is_file():
        raise InputError(str(own), "lacks its config.json", AGAIN)
    check_shards(own)
    if not any(path.suffix in (".safetensors", ".bin") for path in own.glob("*")):
        raise InputError(str(own), "lacks its weights", AGAIN)


def _check_encoders(folder: Path, parts: Parts) -> None:
    """Compare the table of each text encoder with the sizes in its configuration, where both are easily read."""
    for name in parts.encoders:
        config = config_of(folder, name)
        width = next((config[key] for key in WIDTHS if key in config), None)
        if width is None or "vocab_size" not in config or not weight_files(folder, name):
            continue  # a language model of several parts, or weights whose shapes cannot be read without loading them
        shapes = shapes_of(folder, name)
        shape, told = shapes[table_in(shapes)], (config["vocab_size"], width)
        if shape != told:
            problem = f"its weights are of other shapes than its config.json says (tokens {shape} and {told})"
            raise InputError(str(folder / name), problem, AGAIN)


def _check_scheduler(folder: Path, family: Family) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(str(path), f"cannot be read ({error})", AGAIN) from error
    flow = "Flow" in class_of(folder, "scheduler") or config.get("use_flow_sigmas", False)
    predicts = "flow_prediction" if flow else config.get("prediction_type", "epsilon")
    if family.predictions and predicts not in family.predictions:
        problem = f"is for {predicts}, and a {family.title} predicts {' or '.join(family.predictions)}"
        raise InputError(str(path), problem, "give the scheduler that the base was published with")
