"""Loads from a single-file checkpoint, which diffusers converts by the configurations of a base's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from raymap.base.checkpoint import DENOISER, Checkpoint, bare, schedule_of
from raymap.base.folder import tokenizer_at
from raymap.base.parts import parts_of
from raymap.base.shapes import class_of, index_of, weight_files


def is_whole(folder: Path) -> bool:
    """Return whether a folder has configurations alone, so that a single file beside it has to hold all weights."""
    return not any(weight_files(folder, encoder) for encoder in parts_of(index_of(folder)).encoders)


def pipeline_from(
    file: Checkpoint, kind: type[diffusers.DiffusionPipeline], folder: Path, dtype: torch.dtype, **options: Any
) -> diffusers.DiffusionPipeline:
    """Load a whole pipeline.

    Args:
        kind: its class.
        folder: with its configurations.
        options: as for `from_pretrained`.

    Raises:
        ValueError: a weight is missing, or is of another shape than its configuration says.
    """
    names = parts_of(index_of(folder)).tokenizers.values()
    tokenizers = {name: _tokenizer(folder, name) for name in names}
    given = {**options, **tokenizers, "scheduler": scheduler_for(file, folder)}
    with _quiet():
        pipeline = kind.from_single_file(
            str(file.path), config=str(folder), local_files_only=True, dtype=dtype, **given
        )
    for name, part in pipeline.components.items():
        _check_whole(name, part)
    return pipeline


def denoiser_from(file: Checkpoint, folder: Path, dtype: torch.dtype) -> Any:
    """Load a base's denoiser, a torch module.

    Raises:
        ValueError: as `pipeline_from`, or diffusers converts no files for denoisers of this class.
    """
    name = parts_of(index_of(folder)).denoisers[0]
    kind = getattr(diffusers, class_of(folder, name))
    if not hasattr(kind, "from_single_file"):
        raise ValueError(f"diffusers reads no single files for a {kind.__name__}")
    state = load_file(file.path)  # memory-mapped
    own = bare(state)
    with torch.device("meta"):
        named = kind.from_config(kind.load_config(folder / name)).state_dict().keys()
    # Names of diffusers' own need no conversion; converters for others know them by their usual beginning.
    given = own if named <= own.keys() else {f"{DENOISER}{key}": value for key, value in own.items()}
    options = {"config": str(folder), "subfolder": name, "local_files_only": True, "dtype": dtype}
    with _quiet():
        denoiser = kind.from_single_file(given, **options)
    _check_whole(name, denoiser)
    return denoiser


def scheduler_for(file: Checkpoint, folder: Path) -> Any:
    """Return the scheduler of a base's folder with the settings that a single file asks for."""
    kind = getattr(diffusers, class_of(folder, "scheduler"))
    config = kind.load_config(folder / "scheduler")
    scheduler = kind.from_config(config)
    asked = schedule_of(file)
    if not asked or "prediction_type" not in scheduler.config:  # a scheduler of flow matching predicts one thing
        return scheduler
    if "rescale_betas_zero_snr" in asked and "rescale_betas_zero_snr" not in scheduler.config:
        kind = diffusers.DDIMScheduler  # which can begin from noise alone
    return kind.from_config(config, **asked)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what diffusers warns of in every file: weights of averages, and modules to be kept in float32, of none."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _tokenizer(folder: Path, name: str) -> Any:
    """Return a CLIP tokenizer with a folder's settings, whose vocabulary may be the one in the user's cache."""
    path = folder / name / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    at = tokenizer_at(folder, name)
    return CLIPTokenizer.from_pretrained(at, **({} if at == folder / name else settings))


def _check_whole(name: str, part: object) -> None:
    """Check that a component got all of its weights; diffusers leaves those that a file lacks without storage."""
    if isinstance(part, torch.nn.Module):
        lacking = [key for key, value in part.named_parameters() if value.is_meta]
        if lacking:
            raise ValueError(f"its {name} lacks {len(lacking)} weights, {lacking[0]} for one")
