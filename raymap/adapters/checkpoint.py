"""Whole fine-tuned models, a single file or a diffusers folder, as the difference to their base.

A weight counts as changed where it is not the base's, rounded to the format in which the model holds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from raymap.adapters.keys import is_lora_like
from raymap.adapters.update import Adapter, Replacement, Update
from raymap.base.checkpoint import NOT_LEARNED, Checkpoint, bare, count, denoiser_in, lacking, schedule_of
from raymap.base.families.registry import family_at
from raymap.base.file_kinds import kind_in
from raymap.base.folder import decisive
from raymap.base.header import read_header
from raymap.base.parts import parts_of
from raymap.base.shapes import INDEX, index_of, shapes_of
from raymap.base.skeleton import Skeleton
from raymap.base.stored import stored_weights
from raymap.errors import InputError, MisfitError

CHECKPOINT = "checkpoint"
"""What adapters of this kind are called as a method."""
TOGETHER = 64
"""How many weights are read at a time, so that most of a model is never in memory."""
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
Weights = Callable[[Sequence[str]], Mapping[str, torch.Tensor]]


def is_model(path: Path) -> bool:
    """Return whether a path is a diffusers folder, or a safetensors file that holds a denoiser.

    Raises:
        InputError: as `read_header`.
    """
    if path.is_dir():
        return (path / INDEX).is_file()
    if path.suffix not in (".safetensors", ".sft"):
        return False
    header = read_header(path)
    kind = kind_in(header)
    return kind is not None and kind.is_base and not is_lora_like(header.shapes)


def read_model(path: Path, skeleton: Skeleton) -> Adapter:
    """Turn a whole model into the updates of the weights that it changes.

    Raises:
        InputError: it is of another kind than the base or of other sizes, lacks a denoiser, predicts something else, or
            holds values that are not finite.
    """
    if skeleton.folder is None:
        raise InputError(str(path), "is a whole model, and the base has no folder", "give a base that does")
    if path.is_dir():
        return _difference(path, *_folder(path, skeleton), skeleton)
    return _difference(path, *_file(path, skeleton), skeleton)


def _folder(path: Path, skeleton: Skeleton) -> tuple[list[str], Weights]:
    """Return the names of the weights of a diffusers folder, its autoencoder's too, and how to read them."""
    assert skeleton.folder is not None
    family = family_at(path)
    if family.class_name != skeleton.family.class_name:
        raise MisfitError(str(path), f"is a {family.title} model, and the base is {skeleton.family.title}")
    components = [name for name in parts_of(index_of(path)).names if (path / name).is_dir()]
    if skeleton.denoiser not in components:
        raise InputError(str(path), f"lacks the folder of its {skeleton.denoiser}", "fetch it again")
    names: list[str] = []
    for component in (part for part in skeleton.parts.adapted if part in components):
        if not any(file.parent.name == component and file.suffix == ".safetensors" for file in decisive(path)):
            problem = f"holds no safetensors file of its {component}, or variants of it alone"
            raise InputError(str(path), problem, "give one as diffusers saves it")
        own = {f"{component}.{name}": shape for name, shape in shapes_of(path, component).items()}
        base = {name: shape for name, shape in skeleton.shapes.items() if name.startswith(f"{component}.")}
        for shapes in (own, base):
            for name in NOT_LEARNED:
                shapes.pop(f"{component}.{name}", None)
        if odd := sorted(name for name in own.keys() | base.keys() if own.get(name) != base.get(name)):
            problem = f"{odd[0]} has shape {own.get(odd[0], 'none')}, and the base's has {base.get(odd[0], 'none')}"
            raise MisfitError(str(path), problem)
        names += own
    _check_prediction(str(path), _scheduler(path), skeleton)
    names += [f"vae.{name}" for name in shapes_of(path, "vae")] if "vae" in components else []
    return names, lambda asked: stored_weights(path, asked)


def _file(path: Path, skeleton: Skeleton) -> tuple[list[str], Weights]:
    """Return the names of the weights of a single file, as the base has them, and how to read them."""
    from raymap.base.pipeline import load  # loads diffusers, which adapters of other kinds do not need
    from raymap.base.single_file import denoiser_from

    assert skeleton.folder is not None
    file = Checkpoint(str(path), path)
    denoiser = {name: shape for name, shape in skeleton.shapes.items() if name.startswith(f"{skeleton.denoiser}.")}
    here = count(denoiser_in(file.header))
    there = count({name.partition(".")[2]: shape for name, shape in denoiser.items()})
    if here != there:
        kind = kind_in(file.header)
        what = kind.name if kind else "a whole checkpoint"
        problem = f"is {what} with a denoiser of {here:,} numbers, and the base's has {there:,}"
        raise MisfitError(str(path), problem)
    _check_prediction(str(path), schedule_of(file), skeleton)
    whole = bool(skeleton.family.prefixes) and not lacking(file.header, skeleton.family, skeleton.folder)
    try:
        if whole:
            parts = load(skeleton.folder, dtype=_dtype(file), file=file, whole=True).components
        else:
            parts = {skeleton.denoiser: denoiser_from(file, skeleton.folder, _dtype(file))}
    except InputError:
        raise
    except Exception as error:  # whatever diffusers' converters raise about names that they do not know
        problem = f"cannot be converted to diffusers' names ({' '.join(str(error).split())[:200]})"
        raise MisfitError(str(path), problem) from error
    wanted = (*skeleton.parts.adapted, "vae")
    own = {
        f"{component}.{name}": parameter.detach()
        for component, part in parts.items()
        if component in wanted and part is not None
        for name, parameter in part.named_parameters()
    }
    return list(own), lambda asked: {name: own[name] for name in asked}


def _dtype(file: Checkpoint) -> torch.dtype:
    """Return the format in which a file holds all of its weights; float32 where it has several, or another."""
    with safe_open(file.path, framework="pt") as opened:
        keys = bare({key: key for key in file.header.shapes}).values()
        formats = {opened.get_slice(key).get_dtype() for key in keys}
    return DTYPES.get(formats.pop(), torch.float32) if len(formats) == 1 else torch.float32


def _difference(path: Path, names: list[str], weights: Weights, skeleton: Skeleton) -> Adapter:
    base = _weights_of(skeleton)
    updates: dict[str, Update] = {}
    other_decoder = known = False
    for own, its in _pairs(names, weights, base):
        known = known or bool(its)
        for name, value in own.items():
            if name in its and torch.equal(its[name].to(value.dtype), value):
                continue
            if name.startswith("vae."):
                other_decoder = other_decoder or name in its
            elif not torch.isfinite(value).all():
                raise InputError(str(path), f"{name} holds non-finite values", "train or fetch it again")
            else:
                updates[name] = Replacement(value.clone())
    adapted = [name for name in names if not name.startswith("vae.")]
    compared = f"of its {len(adapted)} weights, {len(updates)} differ from the base's"
    notes = [compared if known else "the base's weights are not here, so that all of its own count as changed"]
    if other_decoder:
        notes.append("its autoencoder differs from the base's and is left out: images show the other weights' effect")
    return Adapter(updates, kind=CHECKPOINT, notes=tuple(notes))


def _pairs(
    names: Sequence[str], weights: Weights, base: Weights
) -> Iterator[tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]]:
    for first in range(0, len(names), TOGETHER):
        some = names[first : first + TOGETHER]
        yield weights(some), base(some)


def _weights_of(skeleton: Skeleton) -> Weights:
    """Return how to read the base's own weights; of a single file its pipeline is loaded."""
    assert skeleton.folder is not None
    folder, file = skeleton.folder, skeleton.file
    if file is None:
        return lambda asked: stored_weights(folder, asked)
    from raymap.base.pipeline import load

    parts = load(folder, dtype=_dtype(file), file=file).components
    return lambda asked: {name: parts[name.partition(".")[0]].get_parameter(name.partition(".")[2]) for name in asked}


def _check_prediction(where: str, its: Mapping[str, Any], skeleton: Skeleton) -> None:
    """Check that a model was trained to predict what the base predicts, as far as it says so."""
    assert skeleton.folder is not None
    own = _scheduler(skeleton.folder) | (schedule_of(skeleton.file) if skeleton.file else {})
    told = its.get("prediction_type")
    if told is not None and told != own.get("prediction_type", "epsilon"):
        problem = f"predicts {told}, and the base {own.get('prediction_type', 'epsilon')}"
        raise InputError(where, problem, "give the base that it was trained from")


def _scheduler(folder: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return settings
