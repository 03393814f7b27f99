"""PixArt-α, PixArt-Σ and Sana: transformers that read a prompt by cross-attention, as Stable Diffusion's UNet does."""

from __future__ import annotations

from dataclasses import replace

from raymap.base.families.family import FLOW, Family

PIXART_SIGMA = Family(
    title="PixArt-Σ",
    pipeline="diffusers:PixArtSigmaPipeline",
    steps=20,
    scale=4.5,
    half="float16",
    tokens=300,
    attentions=("attn1", "attn2"),
    text_keys=("attn2.to_k", "attn2.to_v"),
    predictions=("epsilon",),
)

PIXART_ALPHA = replace(PIXART_SIGMA, title="PixArt-α", pipeline="diffusers:PixArtAlphaPipeline", tokens=120)

SANA = replace(
    PIXART_SIGMA,
    title="Sana",
    pipeline="diffusers:SanaPipeline",
    size=(1024, 1024),
    half="bfloat16",
    linear_attention="attn1",
    predictions=FLOW,
)
