"""Loads a base's pipeline from its folder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """Load a pipeline for drawing or training: every module in eval mode, nothing asks for gradients."""
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=dtype, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        module.eval().requires_grad_(False)
    return pipeline.to(device)
