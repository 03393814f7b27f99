"""Qwen-Image: a transformer of double blocks, which reads a language model whose output grows with the prompt."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

QWEN_IMAGE = Family(
    title="Qwen-Image",
    pipeline="diffusers:QwenImagePipeline",
    scale=4.0,
    guidance="true_cfg_scale",
    negative=" ",
    size=(1024, 1024),
    one_prompt=True,
    tokens=512,
    text_tokens=32,
    text_first=True,
    predictions=FLOW,
    outlines={"Qwen/Qwen-Image": "qwen-image"},
)
