"""What is measured: real sizes on a GPU, or tiny ones that try the script itself on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch


@dataclass(frozen=True)
class Sizes:
    """Sizes of models and batches.

    `matrix` is the side of the matrices whose product gives the peak. `base` and `clip` are names of random models.
    `sdxl` and `flux` change settings of the denoisers' configurations, `flux_blocks` is how many double and single
    blocks of the transformer are measured. `compile` is how modules are compiled.
    """

    device: Literal["cpu", "cuda"]
    half: torch.dtype
    compile: Literal["none", "default"]
    matrix: int
    base: str
    clip: str
    steps: int
    largest_batch: int
    embedded_batch: int
    adapters: int
    training_steps: int
    latents: int
    sdxl: dict[str, Any]
    flux: dict[str, Any]
    flux_blocks: tuple[int, int]


GPU = Sizes(
    device="cuda",
    half=torch.float16,
    compile="default",
    matrix=8192,
    base="random:sd15",
    clip="random:ViT-L-14",
    steps=50,
    largest_batch=32,
    embedded_batch=256,
    adapters=45,
    training_steps=20,
    latents=128,
    sdxl={},
    flux={},
    flux_blocks=(4, 8),
)
TRIAL = Sizes(
    device="cpu",
    half=torch.bfloat16,
    compile="none",
    matrix=256,
    base="random:tiny",
    clip="embedded",
    steps=2,
    largest_batch=4,
    embedded_batch=4,
    adapters=3,
    training_steps=2,
    latents=16,
    sdxl={
        "block_out_channels": (32, 64, 64),
        "cross_attention_dim": 64,
        "attention_head_dim": (2, 4, 4),
        "transformer_layers_per_block": 1,
        "projection_class_embeddings_input_dim": 6 * 256 + 1280,
    },
    flux={"num_attention_heads": 2, "joint_attention_dim": 64, "pooled_projection_dim": 32},
    flux_blocks=(1, 1),
)
