"""Measures how long swapping adapters takes, compared with diffusers' own methods, on one machine in one run.

    python -m benchmarks.adapter_swap [--size embedded|sd15] [--repeats 5]

A round consists of three changes: from the base to one LoRA (rank 4, all attention projections), to another LoRA, and
back to the base. `sd15` is a UNet of Stable Diffusion 1.5's size with random weights. A method restores the base if the
UNet's weights are bit-equal to the original ones afterwards. A method that keeps its layers beside the base's changes
adapters quickly but draws slowly, so the table also has the time of a forward pass (two 32×32 latents) under the
adapter. The first round of each method is not counted, because some prepare an adapter when they first use it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from rich.console import Console
from rich.table import Table

from raymap.adapters.lora import LORA_FILE
from raymap.adapters.resident import AdapterStore
from raymap.adapters.update import Adapter
from raymap.base.pipeline import load
from raymap.bench.models import random_lora, write_lora
from raymap.embedded.model import PIPELINE


def sized(size: str) -> StableDiffusionPipeline:
    """Return the embedded pipeline; for `sd15` its UNet is one of SD 1.5's size."""
    pipeline = load(PIPELINE)
    if size == "sd15":
        pipeline.unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval().requires_grad_(False)
    return pipeline


@torch.no_grad()
def timed(
    unet: UNet2DConditionModel,
    first: Callable[[], None],
    second: Callable[[], None],
    restore: Callable[[], None],
    repeats: int,
) -> tuple[float, float]:
    """Return the median seconds of a change of adapters, and of a forward pass under an adapter."""
    latents = torch.randn(2, 4, 32, 32)
    text = torch.randn(2, 77, unet.config.cross_attention_dim)
    changes, passes = [], []
    for _ in range(repeats + 1):
        seconds = 0.0
        for change in (first, second, restore):
            start = time.perf_counter()
            change()
            seconds += time.perf_counter() - start
            if change is not restore:
                start = time.perf_counter()
                unet(latents, 500, text)
                passes.append(time.perf_counter() - start)
        changes.append(seconds / 3)
    return statistics.median(changes[1:]), statistics.median(passes[2:])


def main() -> None:
    """Print one row per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=["embedded", "sd15"], default="embedded")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    pipeline = sized(args.size)
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    loras = [random_lora(pipeline.unet, seed) for seed in (1, 2)]

    def restored() -> bool:
        plain = {k.replace(".base_layer", ""): v for k, v in pipeline.unet.state_dict().items() if "lora_" not in k}
        return all(torch.equal(value, plain[name]) for name, value in before.items())

    rows: list[tuple[str, tuple[float, float], bool]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [write_lora(lora, Path(temporary) / f"lora-{k}") for k, lora in enumerate(loras)]

        def loaded(k: int) -> None:
            pipeline.unload_lora_weights()
            pipeline.load_lora_weights(folders[k], weight_name=LORA_FILE, adapter_name=f"a{k}")

        def fused(k: int) -> None:
            pipeline.unfuse_lora()
            pipeline.fuse_lora(adapter_names=[f"a{k}"])

        store = AdapterStore(pipeline)
        for k, lora in enumerate(loras):
            store.add(f"a{k}", Adapter(lora))
        seconds = timed(pipeline.unet, lambda: store.swap("a0"), lambda: store.swap("a1"), store.restore, args.repeats)
        rows.append(("raymap: swap in place", seconds, restored()))

        seconds = timed(pipeline.unet, lambda: loaded(0), lambda: loaded(1), pipeline.unload_lora_weights, args.repeats)
        rows.append(("diffusers: load_lora_weights, unload", seconds, restored()))

        for k in (0, 1):
            pipeline.load_lora_weights(folders[k], weight_name=LORA_FILE, adapter_name=f"a{k}")
        seconds = timed(
            pipeline.unet,
            lambda: pipeline.set_adapters("a0"),
            lambda: pipeline.set_adapters("a1"),
            lambda: pipeline.set_adapters(["a0", "a1"], [0.0, 0.0]),
            args.repeats,
        )
        rows.append(("diffusers: set_adapters (both loaded, layers stay unfused)", seconds, restored()))
        pipeline.set_adapters("a0")
        pipeline.fuse_lora(adapter_names=["a0"])
        seconds = timed(pipeline.unet, lambda: fused(0), lambda: fused(1), pipeline.unfuse_lora, args.repeats)
        rows.append(("diffusers: fuse_lora, unfuse_lora", seconds, restored()))
    table = Table(title=f"{args.size} UNet, {len(loras[0])} updated weights, {torch.get_num_threads()} threads")
    for name in ("method", "ms per change", "relative to raymap", "ms per forward pass", "base restored to the bit"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for name, (change, forward), exact in rows:
        ratio = f"{change / rows[0][1][0]:.1f}"
        table.add_row(name, f"{1000 * change:.1f}", ratio, f"{1000 * forward:.0f}", "yes" if exact else "no")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
