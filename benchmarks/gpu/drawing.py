"""Drawing, scoring and writing as in a run, the script that people write, swaps, and the embedded bases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import busy_share, seconds_of, synchronize
from raymap.adapters.resident import AdapterStore
from raymap.adapters.update import Adapter
from raymap.base.compile import compiled_once
from raymap.bench.drawing import Drawer, block_of
from raymap.bench.models import image_flops, random_base, random_lora
from raymap.bench.setups import Setup
from raymap.bench.worker import Worker
from raymap.study.model import Compile

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Names and figures of what was measured."""


def setup(sizes: Sizes, **settings: Any) -> Setup:
    """Return a setup of the size at hand, with judges of the usual size and random weights."""
    usual = {
        "base": sizes.base,
        "steps": sizes.steps,
        "guidance_scale": 7.5,
        "dtype": "float16",
        "device": sizes.device,
        "scorer": "apart",
        "clip": sizes.clip,
        "lpips": "random:alex",
        "threads": 4,
        "adapters": 2,
    }
    return Setup.model_validate(usual | settings)


def drawing(sizes: Sizes) -> Rows:
    """Measure drawing alone, and whole work: swaps, drawing, scores and files, eager and compiled."""
    for dtype, batch in (("float16", 8), ("float16", 16), ("bfloat16", 16)):
        asked = setup(sizes, dtype=dtype, batch_size=min(batch, sizes.largest_batch), adapters=1)
        yield f"drawing alone, eager, {dtype}, batch {asked.batch_size}", {"images_per_s": drawn_per_second(asked)}
    yield from whole_work(sizes, setup(sizes, batch_size=sizes.largest_batch, adapters=1))
    compiled = setup(sizes, batch_size=sizes.largest_batch, compile=sizes.compile, channels_last=True)
    yield from whole_work(sizes, compiled, script=True)


def drawn_per_second(asked: Setup) -> float:
    """Return how many images are drawn per second without swaps, scores and files."""
    drawer = Drawer(asked)
    seconds = seconds_of(lambda: drawer.draw(block_of(asked, 0)), asked.device, repeats=1, warm_up=1)
    return asked.batch_size / seconds


def whole_work(sizes: Sizes, asked: Setup, script: bool = False) -> Rows:
    """Measure one setup, after a block of warm-up.

    Args:
        script: whether to measure also the GPU's idle share, and the diffusers script with the same compiled modules.
    """
    kind = "eager" if asked.compile == "none" else "compiled"
    name = f"whole work, {kind}, {asked.dtype}, batch {asked.batch_size}"
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(asked, Path(folder))
        drawer = worker.drawer
        flops = image_flops(drawer.pipeline, asked.steps, guided=True)
        first = seconds_of(lambda: drawer.draw(block_of(asked, 0)), asked.device, repeats=1, warm_up=0)
        with compiled_once(asked.speed):
            worker.time(block_of(asked, 0))
            timing = worker.time(block_of(asked, 1))
            took = timing.ended - timing.began
            row = {
                "images_per_s": timing.images / took,
                "tflops": timing.images * flops / took / 1e12,
                "first_batch_s": first,
                "swap_ms": 1e3 * timing.swap_s / timing.swaps,
                "scoring_share": timing.score_s / took,
                "memory_gib": timing.memory / 2**30,
            }
            yield name, row
            if script:
                if asked.device == "cuda":  # a CPU has no idle time to look for
                    busy = busy_share(lambda: worker.time(block_of(asked, 2)))
                    yield f"{name}, busy", {"share": busy}
                seconds = seconds_of(lambda: plain_script(drawer.pipeline, asked), asked.device, repeats=2, warm_up=1)
                yield f"{name}, diffusers script", {"images_per_s": asked.batch_size / seconds}
        synchronize(asked.device)


def plain_script(pipeline: Any, asked: Setup) -> np.ndarray:
    """Draw a batch as people do with diffusers alone, without adapters, scores and files: uint8 (N, H, W, 3)."""
    block = block_of(asked, 1)
    images = pipeline(
        [item.prompt for item in block.items],
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(item.seed) for item in block.items],
        output_type="np",
    ).images
    return (images * 255).round().astype(np.uint8)


def swaps(sizes: Sizes) -> Rows:
    """Measure a change between adapters, over many of them, and the way back to the base's own weights."""
    pipeline = random_base(sizes.base.removeprefix("random:"), sizes.device, sizes.half)
    before = {name: weight.clone() for name, weight in pipeline.unet.state_dict().items()}
    store = AdapterStore(pipeline)
    names = [f"lora-{k}" for k in range(sizes.adapters)]
    for k, name in enumerate(names):
        store.add(name, Adapter(random_lora(pipeline.unet, k)))

    def once() -> None:
        for name in names:
            store.swap(name)

    seconds = seconds_of(once, sizes.device, repeats=3, warm_up=1)
    back = seconds_of(lambda: (store.swap(names[0]), store.swap(None)), sizes.device) - seconds / len(names)
    restored = all(torch.equal(before[name], weight) for name, weight in pipeline.unet.state_dict().items())
    yield (
        f"swaps of {len(names)} LoRAs",
        {"swap_ms": 1e3 * seconds / len(names), "back_ms": 1e3 * back, "restored": restored},
    )


def embedded(sizes: Sizes) -> Rows:
    """Measure whole work on the embedded base with its own judges, 20 steps."""
    modes: tuple[Compile, ...] = ("none", sizes.compile)
    for mode in modes:
        kind = "eager" if mode == "none" else "compiled"
        asked = Setup(base="embedded", device=sizes.device, dtype="float16", scorer="apart", threads=4, compile=mode,
                      batch_size=sizes.embedded_batch)  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            worker = Worker(asked, Path(folder))
            for k in range(2):
                timing = worker.time(block_of(asked, k))
            took = timing.ended - timing.began
            yield (
                f"embedded base, {kind}, batch {asked.batch_size}",
                {"images_per_s": timing.images / took, "scoring_share": timing.score_s / took},
            )
