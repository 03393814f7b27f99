"""CogView4: a transformer of one stream, in which the neighbours of an image in a batch change it."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

COG_VIEW_4 = Family(
    title="CogView4",
    pipeline="diffusers:CogView4Pipeline",
    one_prompt=True,
    tokens=1024,
    text_tokens=16,
    uses={"transformer_blocks.*(attn1|ff)": "both", "text_proj": "text"},
    attentions=("attn1",),
    text_keys=(),
    predictions=FLOW,
)
