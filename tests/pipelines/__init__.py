"""Tiny pipelines of diffusers' real classes with random weights, one per family: made without a network or a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from raymap.base.settings import OWN
from tests.pipelines.others import (
    aura_flow,
    cog_view_4,
    hunyuan_dit,
    hunyuan_image,
    lumina_2,
    pixart_alpha,
    pixart_sigma,
    qwen_image,
    sana,
    wan,
    z_image,
)
from tests.pipelines.parts import Made
from tests.pipelines.stable_diffusion_and_flux import (
    chroma,
    flux,
    flux_2,
    flux_2_klein,
    flux_schnell,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
)

TINY: dict[str, Callable[[], Made]] = {
    kind.__name__: kind
    for kind in (
        stable_diffusion, stable_diffusion_xl, stable_diffusion_3, flux, flux_schnell, chroma, flux_2, flux_2_klein,
        qwen_image, z_image, lumina_2, pixart_alpha, pixart_sigma, sana, hunyuan_dit, hunyuan_image, wan, aura_flow,
        cog_view_4,
    )
}  # fmt: skip


def save_tiny(name: str, folder: Path, side: int | None = None, seed: int = 0) -> Path:
    """Write a tiny pipeline into a folder, as a base that raymap draws with; equal arguments give equal weights.

    All weights of denoisers are random: layers that start from zero would hide what an adapter does.

    Args:
        side: of the images in pixels; judges need 64, and drawing alone does with fewer.
    """
    torch.manual_seed(seed)
    pipeline, call = TINY[name]()
    random = torch.Generator().manual_seed(seed + 1)
    for part in ("unet", "transformer"):
        for parameter in getattr(pipeline, part, nn.Module()).parameters():
            noise = torch.randn(parameter.shape, generator=random)
            parameter.data = 0.2 * noise if parameter.dim() > 1 else 0.5 + 0.1 * noise
    pipeline.save_pretrained(folder)
    (folder / OWN).write_text(json.dumps({"call": dict(call) | ({"height": side, "width": side} if side else {})}))
    return folder
