"""Loads a base's pipeline from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from raymap.base.families.registry import family_at, family_of


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    """Load a pipeline for drawing or training: every module is in eval mode and asks for no gradients.

    Raises:
        InputError: the folder's base is of no known family.
    """
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    family = family_at(folder)
    pipeline = family.pipeline_class.from_pretrained(folder, dtype=dtype, local_files_only=True, **family.options)
    pipeline.set_progress_bar_config(disable=True)
    for part in (*family.adapted, "vae"):
        getattr(pipeline, part).eval().requires_grad_(False)
    return pipeline.to(device)


def denoiser_of(pipeline: DiffusionPipeline) -> Any:
    """Return a pipeline's denoiser, a torch module with diffusers' `config`."""
    return getattr(pipeline, family_of(pipeline).denoiser)
