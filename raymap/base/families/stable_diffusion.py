"""Stable Diffusion 1 and 2: a UNet that reads the last hidden states of one CLIP text encoder."""

from __future__ import annotations

from raymap.base.families.family import Family

STABLE_DIFFUSION = Family(
    title="Stable Diffusion 1 and 2",
    pipeline="diffusers:StableDiffusionPipeline",
    scale=7.5,
    half="float16",
    objective="raymap.personalize.objectives.denoising:Denoising",
    stages=("down_blocks", "mid_block", "up_blocks"),
    by_block=False,
    attentions=("attn1", "attn2"),
    text_keys=("attn2.to_k", "attn2.to_v"),
    options={"safety_checker": None, "requires_safety_checker": False},
    outlines={
        "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
        "CompVis/stable-diffusion-v1-4": "sd15",
        "stabilityai/stable-diffusion-2-1": "sd21",
        "stabilityai/stable-diffusion-2-1-base": "sd21-base",
    },
    prefixes={"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model."},
    predictions=("epsilon", "v_prediction"),
)
