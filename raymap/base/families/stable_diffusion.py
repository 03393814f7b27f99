"""Stable Diffusion 1 and 2: a UNet that reads the last hidden states of one CLIP text encoder."""

from __future__ import annotations

from raymap.base.families.family import Family

STABLE_DIFFUSION = Family(
    title="Stable Diffusion 1 and 2",
    pipeline="diffusers:StableDiffusionPipeline",
    denoiser="unet",
    text_encoder="text_encoder",
    tokenizer="tokenizer",
    token_embedding="embeddings.token_embedding.weight",
    position_embedding="embeddings.position_embedding.weight",
    stages=("down_blocks", "mid_block", "up_blocks"),
    self_attention="attn1",
    cross_attention="attn2",
    options={"safety_checker": None, "requires_safety_checker": False},
    hub_prefix="text_model.",
    outlines={"stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15", "CompVis/stable-diffusion-v1-4": "sd15"},
)
