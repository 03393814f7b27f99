"""AuraFlow: a transformer of a few joint blocks and many single ones."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

AURA_FLOW = Family(
    title="AuraFlow",
    pipeline="diffusers:AuraFlowPipeline",
    scale=3.5,
    size=(1024, 1024),
    tokens=256,
    stages=("joint_transformer_blocks", "single_transformer_blocks"),
    text_first=True,
    predictions=FLOW,
)
