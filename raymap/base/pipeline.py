"""Loads a base's pipeline from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from raymap.base.checkpoint import Checkpoint
from raymap.base.families.registry import family_at, family_of
from raymap.base.parts import TEXT, parts_in, parts_of
from raymap.base.quantize import quantization
from raymap.base.settings import OwnSettings, own_settings
from raymap.base.shapes import index_of
from raymap.base.single_file import denoiser_from, is_whole, pipeline_from, scheduler_for
from raymap.errors import InputError
from raymap.study.model import MemorySettings, SamplerSettings

MEMORY = MemorySettings()
"""Everything on the device, whole and in the dtype that is asked for."""


def load(
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    memory: MemorySettings = MEMORY,
    file: Checkpoint | None = None,
    whole: bool = False,
) -> DiffusionPipeline:
    """Load a pipeline for drawing or training: every module is in eval mode and asks for no gradients.

    What its folder itself says about drawing is kept in the pipeline's configuration.

    Args:
        memory: what is kept off the device, decoded piecewise, or quantised.
        file: a single file with the weights of its denoiser, or of all of it where the folder has configurations alone.
        whole: the file holds all of the weights, whatever the folder has.

    Raises:
        InputError: the folder's base is of no family, or a part of it is missing or damaged.
    """
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    family = family_at(folder)
    kind = family.pipeline_class
    parts = parts_of(index_of(folder))
    absent = dict.fromkeys(_optional(kind) - set(parts.names))
    options = {**absent, **family.options, **quantization(memory.quantize, parts.denoisers, dtype)}
    try:
        if file and (whole or is_whole(folder)):
            pipeline = pipeline_from(file, kind, folder, dtype, **options)
        else:
            if file:
                denoiser = parts.denoisers[0]
                options |= {denoiser: denoiser_from(file, folder, dtype), "scheduler": scheduler_for(file, folder)}
            pipeline = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, **options)
    except Exception as error:  # whatever the libraries raise about a part that is missing or damaged
        problem = f"cannot be loaded ({' '.join(str(error).split())[:300]})"
        where = f"base: {folder}" if file is None else file.name
        raise InputError(where, problem, "fetch the base again, all of its files") from error
    own = own_settings(folder)
    pipeline.register_to_config(_raymap_call=dict(own.call), _raymap_sampler=dict(own.sampler))
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    _decode_piecewise(pipeline, memory)
    return _placed(pipeline, device, memory)


def _decode_piecewise(pipeline: DiffusionPipeline, memory: MemorySettings) -> None:
    """Have the autoencoder decode as the settings say, where it can."""
    for wanted, method in ((("sliced", "tiled"), "enable_slicing"), (("tiled",), "enable_tiling")):
        if memory.decode in wanted and hasattr(pipeline.vae, method):
            getattr(pipeline.vae, method)()


def _placed(pipeline: DiffusionPipeline, device: str, memory: MemorySettings) -> DiffusionPipeline:
    """Put a pipeline's components where the settings say; `PromptEncoder` fetches text encoders that stay behind."""
    if memory.offload == "none":
        return pipeline.to(device)
    if memory.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
        return pipeline
    parts = parts_in(pipeline)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name not in parts.encoders:
            part.to(device)
    if pipeline.device.type != torch.device(device).type:
        problem = "this release of diffusers takes a pipeline to be where its first component is"
        raise InputError("memory.offload: encoders", problem, "install a newer one, or write `offload: model`")
    return pipeline


def _optional(kind: type[DiffusionPipeline]) -> set[str]:
    """Return the components that a pipeline's class asks for and can do without: those, and text encoders."""
    asked, _ = kind._get_signature_keys(kind)
    return {name for name in asked if name in kind._optional_components or name.startswith((TEXT, "tokenizer"))}


def own_of(pipeline: DiffusionPipeline) -> OwnSettings:
    """Return what the folder of a pipeline says about drawing; nothing for one that was built."""
    return OwnSettings(*(dict(pipeline.config.get(f"_raymap_{key}", {})) for key in ("call", "sampler")))


def usual_sampler(pipeline: DiffusionPipeline) -> SamplerSettings:
    """Return the steps and the guidance scale with which a pipeline draws without being asked."""
    return family_of(pipeline).sampler(own_of(pipeline).completed(SamplerSettings()))


def denoiser_of(pipeline: DiffusionPipeline) -> Any:
    """Return a pipeline's denoiser, a torch module with diffusers' `config`; the first of two experts."""
    return getattr(pipeline, parts_in(pipeline).denoisers[0])
