"""Denoisers alone: ways to compute the UNet of Stable Diffusion 1.5, SDXL's, blocks of FLUX.1's, and the side path."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.drawing import Rows
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import seconds_of
from raymap.adapters.beside import SidePath
from raymap.adapters.resident import AdapterStore
from raymap.adapters.update import Adapter
from raymap.base.folder import OUTLINES
from raymap.bench.models import random_base, random_lora

Pass = Callable[[], torch.Tensor]
"""One pass of a denoiser, which returns what it predicts."""


@torch.no_grad()
def ways(sizes: Sizes) -> Rows:
    """Measure a pass of Stable Diffusion 1.5's UNet, computed in several ways, and how far each is from the first."""
    pipeline = random_base(sizes.base.removeprefix("random:"), sizes.device, sizes.half)
    unet, batch = pipeline.unet, 2 * sizes.largest_batch
    run = unet_pass(unet, sizes, batch, tokens=77)
    flops, plain = flops_of(run), run()

    def measured(context: AbstractContextManager[object] | None = None) -> dict[str, float]:
        with context or contextlib.nullcontext():
            seconds = seconds_of(run, sizes.device)
            gap = ((run() - plain).float().norm() / plain.float().norm()).item()
        return {"ms": 1e3 * seconds, "tflops": flops / seconds / 1e12, "differs": gap}

    name = f"SD 1.5 UNet, {batch} latents"
    yield f"{name}, eager", measured()
    if sizes.device == "cuda":
        yield f"{name}, cuDNN attention", measured(sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH], True))
    unet.to(memory_format=torch.channels_last)
    yield f"{name}, channels last", measured()
    unet.fuse_qkv_projections()
    yield f"{name}, channels last, fused QKV", measured()
    unet.unfuse_qkv_projections()
    yield from beside(pipeline, run, sizes)
    if sizes.compile == "none":
        return
    unet.compile_repeated_blocks()
    yield f"{name}, channels last, its blocks compiled", measured()
    torch.compiler.reset()
    unet.compile()
    yield f"{name}, channels last, compiled", measured()


def beside(pipeline: Any, run: Pass, sizes: Sizes) -> Rows:
    """Measure a pass under a LoRA of rank 4 that is written into the weights, and under one beside the layers."""
    updates = random_lora(pipeline.unet, 0)
    store = AdapterStore(pipeline)
    store.add("lora", Adapter(updates))
    store.swap("lora")
    written = seconds_of(run, sizes.device)
    store.swap(None)
    paths = []
    for name, update in updates.items():
        layer = pipeline.unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
        paths.append(SidePath(layer))
        paths[-1].set(update)
    aside = seconds_of(run, sizes.device)
    for name in updates:
        pipeline.unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))._forward_hooks.clear()
    yield "a LoRA of rank 4", {"written_ms": 1e3 * written, "beside_ms": 1e3 * aside, "ratio": aside / written}


@torch.no_grad()
def large(sizes: Sizes) -> Rows:
    """Measure passes of SDXL's UNet at 1024×1024 pixels, and of a part of FLUX.1's blocks, in 16 bits."""
    config = _config("sdxl", "unet") | sizes.sdxl
    unet = _built(lambda: UNet2DConditionModel(**config), sizes)
    for batch in (2, 8):
        run = unet_pass(unet, sizes, batch, tokens=77, side=sizes.latents)
        yield f"SDXL UNet, {batch} latents, eager", _figures(run, sizes)
    unet.to(memory_format=torch.channels_last)
    if sizes.compile != "none":
        flops = flops_of(run)
        unet.compile_repeated_blocks()
        yield "SDXL UNet, 8 latents, channels last, its blocks compiled", _figures(run, sizes, flops)
    del unet, run
    double, single = sizes.flux_blocks
    config = _config("flux1-dev", "transformer") | sizes.flux | {"num_layers": double, "num_single_layers": single}
    flux = _built(lambda: FluxTransformer2DModel(**config), sizes)
    name = f"FLUX.1, {double} double and {single} single blocks, batch 4"
    run = flux_pass(flux, sizes, 4)
    flops = flops_of(run)
    yield f"{name}, eager", _figures(run, sizes, flops)
    if sizes.compile != "none":
        flux.compile_repeated_blocks()
        yield f"{name}, its blocks compiled", _figures(run, sizes, flops)


def _config(outline: str, part: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((OUTLINES / outline / part / "config.json").read_text(encoding="utf-8"))
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _built(make: Callable[[], Any], sizes: Sizes) -> Any:
    with torch.device(sizes.device):
        model = make().eval().requires_grad_(False)
    return nn.Module.to(model, torch.bfloat16)


def unet_pass(unet: Any, sizes: Sizes, batch: int, tokens: int, side: int | None = None) -> Pass:
    """Return a pass over random latents."""
    config, options = unet.config, {"device": unet.device, "dtype": unet.dtype}
    side = side or config.sample_size
    random = torch.Generator(unet.device).manual_seed(0)
    latents = torch.randn(batch, config.in_channels, side, side, generator=random, **options)
    text = torch.randn(batch, tokens, config.cross_attention_dim, generator=random, **options)
    further = {}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        further["added_cond_kwargs"] = {
            "text_embeds": torch.randn(batch, pooled, generator=random, **options),
            "time_ids": torch.zeros(batch, 6, **options),
        }
    step = torch.tensor(500, device=unet.device)
    return lambda: unet(latents, step, text, return_dict=False, **further)[0]


def flux_pass(flux: Any, sizes: Sizes, batch: int) -> Pass:
    """Return a pass over random latents of an image whose side in pixels is eight times `sizes.latents`."""
    config, options = flux.config, {"device": flux.device, "dtype": flux.dtype}
    side = sizes.latents // 2
    positions = torch.zeros(side, side, 3)
    positions[..., 1] += torch.arange(side)[:, None]
    positions[..., 2] += torch.arange(side)[None, :]
    tokens = 512 if sizes.device == "cuda" else 8
    given = {
        "hidden_states": torch.randn(batch, side * side, config.in_channels, **options),
        "encoder_hidden_states": torch.randn(batch, tokens, config.joint_attention_dim, **options),
        "pooled_projections": torch.randn(batch, config.pooled_projection_dim, **options),
        "timestep": torch.full((batch,), 0.5, **options),
        "guidance": torch.full((batch,), 3.5, **options),
        "img_ids": positions.reshape(-1, 3).to(**options),
        "txt_ids": torch.zeros(tokens, 3, **options),
    }
    return lambda: flux(**given, return_dict=False)[0]


def flops_of(run: Pass) -> float:
    """Return the FLOPs of a pass that is not compiled, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _figures(run: Pass, sizes: Sizes, flops: float | None = None) -> dict[str, float]:
    counted = flops or flops_of(run)
    seconds = seconds_of(run, sizes.device)
    return {"ms": 1e3 * seconds, "tflops": counted / seconds / 1e12}
