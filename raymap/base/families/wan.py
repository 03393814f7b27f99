"""Wan 2.1 and 2.2, which draw videos, with one frame: transformers that read a prompt by cross-attention."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

WAN = Family(
    title="Wan",
    pipeline="diffusers:WanPipeline",
    size=(480, 832),
    tokens=512,
    uses={"condition_embedder.text_embedder": "text", "condition_embedder": "pooled"},
    call={"num_frames": 1},
    stages=("blocks",),
    attentions=("attn1", "attn2"),
    text_keys=("attn2.to_k", "attn2.to_v"),
    predictions=FLOW,
)
