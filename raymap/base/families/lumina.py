"""Lumina-Image 2.0: a transformer of one stream, which pads the prompts of a batch to the longest."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

LUMINA_2 = Family(
    title="Lumina-Image 2.0",
    pipeline="diffusers:Lumina2Pipeline",
    steps=30,
    scale=4.0,
    one_prompt=True,
    tokens=256,
    joint_tokens=48,  # of which some thirty are the pipeline's own introduction
    uses={"caption_embedder": "text", "norm_out.linear_2": "image"},
    stages=("noise_refiner", "context_refiner", "layers"),
    text_keys=(),
    predictions=FLOW,
)
