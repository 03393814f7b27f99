"""Z-Image: a transformer of one stream, which text and image share."""

from __future__ import annotations

from raymap.base.families.family import FLOW, Family

Z_IMAGE = Family(
    title="Z-Image",
    pipeline="diffusers:ZImagePipeline",
    unguided=0.0,  # its prediction is pos + s·(pos − neg)
    size=(1024, 1024),
    tokens=512,
    text_tokens=32,
    uses={"cap_embedder": "text", "context_refiner": "text"},
    stages=("noise_refiner", "context_refiner", "layers"),
    attentions=("attention",),
    text_keys=(),
    predictions=FLOW,
    outlines={"Tongyi-MAI/Z-Image-Turbo": "z-image", "Tongyi-MAI/Z-Image": "z-image"},
)
