"""FLUX.1, Chroma, FLUX.2 and FLUX.2 klein: transformers of double blocks, which keep two streams, and single blocks."""

from __future__ import annotations

from dataclasses import replace

from raymap.base.families.family import FLOW, Family

FLUX = Family(
    title="FLUX.1",
    pipeline="diffusers:FluxPipeline",
    steps=28,
    scale=3.5,
    unguided=None,
    size=(1024, 1024),
    tokens=512,
    packed=2,
    inversions={"clip_l": "text_encoder", "t5": "text_encoder_2"},
    objective="raymap.personalize.objectives.flow:FluxFlow",
    lora_targets=(
        "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
        "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
        "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
    ),
    stages=("transformer_blocks", "single_transformer_blocks"),
    text_first=True,
    text_layout=("text_encoder_2",),
    predictions=FLOW,
    outlines={
        "black-forest-labs/FLUX.1-dev": "flux1-dev",
        "black-forest-labs/FLUX.1-Krea-dev": "flux1-dev",
        "black-forest-labs/FLUX.1-schnell": "flux1-schnell",
    },
)  # fmt: skip

CHROMA = replace(
    FLUX,
    title="Chroma",
    pipeline="diffusers:ChromaPipeline",
    steps=35,
    scale=5.0,
    unguided=1.0,
    inversions={},
    uses={"distilled_guidance_layer": 344},  # one token for each vector of modulation
    objective=None,
    text_layout=("text_encoder",),
    outlines={"lodestones/Chroma1-HD": "chroma", "lodestones/Chroma1-Base": "chroma"},
)

FLUX_2 = replace(
    FLUX,
    title="FLUX.2",
    pipeline="diffusers:Flux2Pipeline",
    steps=50,
    scale=4.0,
    inversions={},
    objective=None,
    lora_targets=Family.lora_targets,
    text_layout=("text_encoder",),
    outlines={},
)

FLUX_2_KLEIN = replace(
    FLUX_2,
    title="FLUX.2 klein",
    pipeline="diffusers:Flux2KleinPipeline",
    unguided=1.0,
    flags={"is_distilled": {"unguided": None, "steps": 4, "scale": 1.0}},
    outlines={"black-forest-labs/FLUX.2-klein-4B": "flux2-klein-4b"},
)
