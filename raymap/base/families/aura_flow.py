"""AuraFlow: a transformer of a few joint blocks and many single ones."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

AURA_FLOW = Family(
    title="AuraFlow",
    pipeline="diffusers:AuraFlowPipeline",
    scale=3.5,
    half="float16",
    size=(1024, 1024),
    tokens=256,
    text_tokens=256 + 8,  # and as many registers
    uses={"register": "text"},
    stages=("joint_transformer_blocks", "single_transformer_blocks"),
    text_first=True,
    text_layout=("register_tokens", "text_encoder"),
    predictions=FLOW,
)
