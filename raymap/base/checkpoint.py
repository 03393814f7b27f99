"""Single-file checkpoints: of which packaged outline such a file is, by its header, and what it says of its scheduler.

diffusers' own guess is not used, as it takes every file that it does not know for Stable Diffusion 1.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml

from raymap.base.families.family import Family
from raymap.base.families.registry import FAMILIES
from raymap.base.file_kinds import kind_in
from raymap.base.folder import OUTLINES, digest
from raymap.base.header import Header, Shapes, read_header
from raymap.base.parts import parts_of
from raymap.base.shapes import index_of, shapes_of
from raymap.errors import InputError

T = TypeVar("T")
ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""How the names of files end that people keep checkpoints in; all but the first two are refused when they are read."""
DENOISER = "model.diffusion_model."
"""What the names of a denoiser's weights begin with in most single files; in others they begin with nothing."""
COMFY = "diffusion_model."
"""What they begin with where ComfyUI saved a denoiser alone."""
NOT_LEARNED = {"pos_embed", "pos_embed.pos_embed", "norm_final.weight"}
"""Tensors beside a denoiser's weights, which some files have and others lack."""
PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}
"""What a denoiser predicts, by the words for it in files' metadata and in configurations beside files."""


@dataclass(frozen=True)
class Checkpoint:
    """A single file of weights: what a study calls it, and where it is on this node."""

    name: str
    path: Path

    @cached_property
    def header(self) -> Header:
        """Its header. Raises InputError as `read_header`."""
        return read_header(self.path, self.name)


def names_file(base: str) -> bool:
    """Return whether a base's name is that of a file, on this node or by its URL."""
    return Path(base).is_file() or urlsplit(base).path.lower().endswith(ENDINGS)


def count(shapes: Shapes) -> int:
    """Return how many numbers a denoiser learned. Renaming, splitting and joining its tensors changes none of it."""
    return sum(math.prod(shape) for name, shape in shapes.items() if name not in NOT_LEARNED)


def denoiser_in(header: Header) -> Shapes:
    """Return the shapes of the denoiser's tensors in a file, by their names without the usual beginning."""
    return bare(header.shapes)


def bare(named: Mapping[str, T]) -> dict[str, T]:
    """Return what a denoiser's tensors are or have, by their names without the usual beginning."""
    for prefix in (DENOISER, COMFY):
        own = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
        if own:
            return own
    return dict(named)


def outline_for(file: Checkpoint) -> Path:
    """Return the folder of the outline that describes a whole pipeline in a single file.

    Raises:
        InputError: the file cannot be read, is of another kind or of no known architecture, lacks a part of a pipeline,
            or does not say what its denoiser predicts where that cannot be told otherwise.
    """
    header = file.header
    own = count(denoiser_in(header))
    outlines: dict[Path, tuple[str, Family]] = {}
    for family in FAMILIES.values():
        for hub_id, name in family.outlines.items():
            outlines.setdefault(OUTLINES / name, (hub_id, family))
    fitting = [folder for folder in outlines if count(shapes_of(folder, _denoiser(folder))) == own]
    if not fitting:
        raise _unfit(file)
    hub_id, family = outlines[fitting[0]]
    if missing := lacking(header, family, fitting[0]):
        problem = f"is a {family.title} checkpoint without {', '.join(missing)}"
        raise InputError(
            file.name, problem, f"write `base: {hub_id}` and `weights: {file.name}`, or --base and --weights"
        )
    if len(fitting) == 1:
        return fitting[0]
    told = _prediction(file)
    for folder in fitting:
        if _scheduler(folder).get("prediction_type", "epsilon") == told:
            return folder
    problem = f"does not say whether it predicts velocity or noise, as {family.title} checkpoints of its sizes do both"
    remedy = "write `model: {params: {parameterization: v}}`, or `eps`, into " + str(file.path.with_suffix(".yaml"))
    raise InputError(file.name, problem, remedy)


def check_denoiser(file: Checkpoint, folder: Path, family: Family) -> None:
    """Check that a single file holds the weights of a base's denoiser, and no other pipeline.

    Args:
        folder: the base's.

    Raises:
        InputError: the file cannot be read, is of another kind or has another number of weights, or it is a whole
            pipeline, which needs no base beside it; or the base has two denoisers.
    """
    if len(parts_of(index_of(folder)).denoisers) > 1:
        raise InputError(file.name, "is one denoiser, and the base has two", "give a diffusers folder with both")
    header = file.header
    here, there = count(denoiser_in(header)), count(shapes_of(folder, _denoiser(folder)))
    if here != there:
        if kind := _kind(header):
            raise InputError(file.name, *kind)
        problem = f"holds {here:,} weights, and the base's denoiser, a {family.title}, has {there:,}"
        raise InputError(file.name, problem, "give a file for this base, or the base that the file is for")
    if family.prefixes and not lacking(header, family, folder):
        problem = f"is a whole {family.title} checkpoint, whose text encoders and decoder would be left out"
        raise InputError(file.name, problem, f"give it alone, as `base: {file.name}` or --base")


def schedule_of(file: Checkpoint) -> dict[str, Any]:
    """Return the settings of a scheduler for noise that a single file asks for, by its markers or a file beside it."""
    header = file.header
    told = _prediction(file)
    schedule: dict[str, Any] = {} if told is None else {"prediction_type": told}
    if "ztsnr" in header.shapes:  # trained until the last step is noise alone, so that drawing has to begin there
        schedule |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return schedule


def digest_with(folder: Path, file: Checkpoint) -> str:
    """Return the SHA-256 of a base whose weights, or only whose denoiser's, a single file holds."""
    decides = [digest(folder, (_denoiser(folder),)), json.dumps(schedule_of(file), sort_keys=True)]
    with file.path.open("rb") as opened:
        decides.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return hashlib.sha256("\n".join(decides).encode()).hexdigest()


def prediction_beside(path: Path) -> Path | None:
    """Return the configuration beside a single file that says what its denoiser predicts; None where there is none."""
    return path.with_suffix(".yaml") if _configured(path) is not None else None


def _configured(path: Path) -> str | None:
    try:
        configured = yaml.safe_load(path.with_suffix(".yaml").read_text(encoding="utf-8"))["model"]["params"]
        return PREDICTIONS[configured.get("parameterization", "eps")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None  # there is none, or it is about something else


def _prediction(file: Checkpoint) -> str | None:
    """Return what a file says that its denoiser predicts; the word of a configuration beside it (`.yaml`) is first."""
    if configured := _configured(file.path):
        return configured
    if "v_pred" in file.header.shapes:
        return "v_prediction"
    return PREDICTIONS.get(file.header.metadata.get("modelspec.prediction_type", "").lower())


def lacking(header: Header, family: Family, folder: Path) -> list[str]:
    """Return which components of a pipeline a file lacks; of a family whose files are never whole, text encoders."""
    if not family.prefixes:
        return ["text encoders and their tokenizers"]
    missing = []
    for component, prefix in family.prefixes.items():
        own = {name: shape for name, shape in header.shapes.items() if name.startswith(prefix)}
        # A file may hold layers of an encoder that the pipeline leaves out.
        if count(own) < count(shapes_of(folder, component)):
            missing.append(component)
    return missing


def _unfit(file: Checkpoint) -> InputError:
    kind = _kind(file.header)
    if kind is None:
        problem = "is no checkpoint of a known architecture"
        kind = problem, "give a file of one that docs/bases.md lists, or a diffusers folder"
    return InputError(file.name, *kind)


def _kind(header: Header) -> tuple[str, str] | None:
    """Return what a file is that holds no denoiser, and what to do; None where nothing tells."""
    kind = kind_in(header)
    if kind is None or kind.is_base:
        return None
    if kind.is_adapter and kind.is_read:
        return f"is {kind.name}", "give it as an adapter"
    remedy = "give the file in 16 bits" if "quantised" in kind.name else "give the checkpoint that it belongs to"
    return f"is {kind.name}", remedy


def _denoiser(folder: Path) -> str:
    return parts_of(index_of(folder)).denoisers[0]


def _scheduler(folder: Path) -> Mapping[str, Any]:
    scheduler: Mapping[str, Any] = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return scheduler
