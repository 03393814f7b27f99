"""SDXL, with Pony, Illustrious and NoobAI, and Kolors: a UNet that reads sizes and a pooled text beside a prompt."""

from __future__ import annotations

from dataclasses import replace

from raymap.base.families.stable_diffusion import STABLE_DIFFUSION

STABLE_DIFFUSION_XL = replace(
    STABLE_DIFFUSION,
    title="SDXL",
    pipeline="diffusers:StableDiffusionXLPipeline",
    scale=5.0,
    inversions={"clip_l": "text_encoder", "clip_g": "text_encoder_2"},
    objective="raymap.personalize.objectives.denoising:DenoisingXL",
    options={"add_watermarker": False},
    outlines={"stabilityai/stable-diffusion-xl-base-1.0": "sdxl"},
    prefixes={
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "conditioner.embedders.0.",
        "text_encoder_2": "conditioner.embedders.1.",
    },
)

KOLORS = replace(
    STABLE_DIFFUSION_XL,
    title="Kolors",
    pipeline="diffusers:KolorsPipeline",
    tokens=256,
    inversions={},
    objective=None,
    options={},
    outlines={},
    prefixes={},
)
