"""HunyuanDiT, which reads a prompt by cross-attention, and HunyuanImage 2.1, whose blocks attend to both together."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

HUNYUAN_DIT = Family(
    title="HunyuanDiT",
    pipeline="diffusers:HunyuanDiTPipeline",
    half="float16",
    tokens=256,
    text_tokens=77 + 256,
    uses={r"pooler\.[kv]_proj": 257, "^text_embedder": 256},
    options={"safety_checker": None, "requires_safety_checker": False},
    stages=("blocks",),
    attentions=("attn1", "attn2"),
    text_keys=("attn2.to_k", "attn2.to_v"),
    text_layout=("text_encoder", "text_encoder_2"),
    predictions=("epsilon", "v_prediction"),
)

HUNYUAN_IMAGE = Family(
    title="HunyuanImage 2.1",
    pipeline="diffusers:HunyuanImagePipeline",
    scale=3.25,
    guidance="distilled_guidance_scale",
    unguided=None,
    size=(2048, 2048),
    one_prompt=True,
    tokens=1000,
    text_tokens=1000 + 128,
    uses={
        "time_text_embed": "pooled",
        r"norm_out\.linear": "pooled",
        "context_embedder_2": 128,
        "context_embedder": 1000,
    },
    stages=("transformer_blocks", "single_transformer_blocks"),
    text_first=False,
    predictions=FLOW,
)
