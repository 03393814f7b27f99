"""Measures how long measuring attention takes, compared with a plain run of the same pairs, in one process.

    python -m benchmarks.attention [--pairs 16] [--steps 20] [--rounds 3]

A plain run draws and decodes a batch by the base and under an adapter. Measuring attention denoises the same batch with
both models, step by step, without decoding: in two passes per step for `free` alone, with a third pass for `forced`.
Seconds are this thread's processor time on the CPU, which other work on the machine disturbs least; they are medians
over rounds that take the methods in turn. The last column is the additional memory that measuring needs: the base's
attention maps of one step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from raymap.adapters.resident import AdapterStore
from raymap.adapters.update import Adapter
from raymap.base.families.registry import family_of
from raymap.base.pipeline import load
from raymap.bench.models import random_lora
from raymap.drawing.attention.denoise import Comparer
from raymap.drawing.attention.watch import watched
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.study.model import AttentionSettings, SamplerSettings

SIDE = 64
"""The height and width of the embedded base's images."""
PROMPTS = ["a red car on a street", "a city at night", "a brown bear on snow", "red and blue stripes"]


def main() -> None:
    """Print one row per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load(PIPELINE)
    store = AdapterStore(pipeline)
    store.add("lora", Adapter(random_lora(pipeline.unet, 1)))
    encoder = PromptEncoder(pipeline, store)
    sampler = SamplerSettings(steps=args.steps)
    prompts = [PROMPTS[k % len(PROMPTS)] for k in range(args.pairs)]
    seeds = tuple(range(args.pairs))

    def plain() -> None:
        for adapter in (None, "lora"):
            store.swap(adapter)
            draw(pipeline, encoder, prompts, seeds, sampler, args.pairs)

    def measured(settings: AttentionSettings) -> Callable[[], object]:
        comparer = Comparer(pipeline, store, encoder, sampler, settings, args.pairs, (SIDE, SIDE))
        return lambda: comparer.compare("lora", prompts, seeds)

    methods: dict[str, Callable[[], object]] = {
        "plain run: base and adapted images": plain,
        "attention, free only": measured(AttentionSettings(protocols=("free",))),
        "attention, free and forced (default)": measured(AttentionSettings()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(args.rounds + 1):
        for name, method in methods.items():
            start = time.process_time()
            method()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    sizes: dict[int, int] = {}

    def take(layer: int, maps: torch.Tensor) -> None:
        sizes[layer] = maps.nbytes

    store.restore()
    with watched(pipeline.unet, family_of(pipeline), slice(-args.pairs, None), take):
        draw(pipeline, encoder, prompts, seeds, SamplerSettings(steps=1), args.pairs)
    map_bytes = sum(sizes.values())
    table = Table(title=f"{args.pairs} pairs, {args.steps} steps, embedded base, one CPU thread", title_justify="left")
    for name in ("method", "s", "relative to the plain run", "min to max", "MiB of maps"):
        table.add_column(name, justify="left" if name == "method" else "right")
    first = statistics.median(seconds[next(iter(methods))])
    for name, taken in seconds.items():
        spread = f"{min(taken) / first:.2f} to {max(taken) / first:.2f}"
        maps = "0" if name.startswith("plain") else f"{map_bytes / 2**20:.1f}"
        table.add_row(name, f"{statistics.median(taken):.2f}", f"{statistics.median(taken) / first:.2f}", spread, maps)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
