"""Seconds that measuring attention takes beside a plain run of the same pairs, in one process.

    python -m benchmarks.attention [--pairs 16] [--steps 20] [--rounds 3]

A plain run draws a batch under the base and under an adapter, decoded. Measuring denoises the same batch under both, in
step, without decoding: `free` alone, or with `forced` a third pass a step. Seconds are processor time of this thread
on the CPU, which neighbours on the machine disturb least, medians over rounds that take the ways in turn. The last
column is what measuring holds beside a plain run all the while: the base's maps of one step.
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

PROMPTS = ["a red car on a street", "a city at night", "a brown bear on snow", "red and blue stripes"]


def main() -> None:
    """Print a row a way."""
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
        comparer = Comparer(pipeline, store, encoder, sampler, settings, args.pairs)
        return lambda: comparer.compare("lora", prompts, seeds)

    ways: dict[str, Callable[[], object]] = {
        "plain run: base and adapted pictures": plain,
        "attention, free alone": measured(AttentionSettings(protocols=("free",))),
        "attention, free and forced (default)": measured(AttentionSettings()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(args.rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    held = 0

    def take(layer: int, maps: torch.Tensor) -> None:
        nonlocal held
        held += maps.nbytes

    store.restore()
    with watched(pipeline.unet, family_of(pipeline), slice(0, args.pairs), take), torch.no_grad():
        side = pipeline.unet.config.sample_size
        pipeline.unet(torch.zeros(args.pairs, 4, side, side), 1, encoder(prompts))
    table = Table(title=f"{args.pairs} pairs, {args.steps} steps, embedded base, one CPU thread", title_justify="left")
    for name in ("way", "s", "times the plain run", "least to most", "MiB of maps held"):
        table.add_column(name, justify="left" if name == "way" else "right")
    first = statistics.median(seconds[next(iter(ways))])
    for name, taken in seconds.items():
        spread = f"{min(taken) / first:.2f} to {max(taken) / first:.2f}"
        maps = "0" if name.startswith("plain") else f"{held / 2**20:.1f}"
        table.add_row(name, f"{statistics.median(taken):.2f}", f"{statistics.median(taken) / first:.2f}", spread, maps)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
