"""Stable Diffusion 3 and 3.5: a transformer that attends to image and text together, and up to three encoders."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

STABLE_DIFFUSION_3 = Family(
    title="Stable Diffusion 3",
    pipeline="diffusers:StableDiffusion3Pipeline",
    steps=28,
    scale=7.0,
    half="float16",
    tokens=256,
    appended_tokens=256,
    inversions={"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5": "text_encoder_3"},
    objective="raymap.personalize.objectives.flow:StableDiffusion3Flow",
    lora_targets=(
        "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
        "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
    ),
    attentions=("attn", "attn2"),
    text_first=False,
    text_layout=("text_encoder", "text_encoder_3"),  # the two CLIP encoders share positions
    predictions=FLOW,
    outlines={
        "stabilityai/stable-diffusion-3-medium-diffusers": "sd3-medium",
        "stabilityai/stable-diffusion-3.5-medium": "sd35-medium",
        "stabilityai/stable-diffusion-3.5-large": "sd35-large",
    },
)  # fmt: skip
