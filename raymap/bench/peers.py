"""Other programs that do a study's work with diffusers: what one would write without raymap.

    python -m raymap.bench.peers PROGRAM STUDY SCORES

`one`: one image at a time. `batched`: a batch at a time. `compiled`: so, laid out and compiled by the study's `speed`,
which the others but raymap leave aside. `accelerate`: batches split between processes, started by
`python -m torch.distributed.run`. `ray-data` (raymap/bench/ray_data.py): batches through map_batches, in actors. Each
draws base and adapters with the study's seeds, and writes the study's scores: the same rows, by the same judges. They
load adapters as diffusers does; Custom Diffusion, which its loader leaves without effect, by copying weights.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from raymap.adapters.custom_diffusion import CUSTOM_DIFFUSION_FILE, key_of
from raymap.adapters.inversion import INVERSION_FILE
from raymap.adapters.lora import LORA_FILE
from raymap.diffusion.base import resolve
from raymap.diffusion.pipeline import load
from raymap.diffusion.speed import speed_up
from raymap.scoring.clip import ClipScorer
from raymap.scoring.perceptual import LpipsScorer
from raymap.store.files import write_atomically
from raymap.store.folder import arrow_bytes
from raymap.study import Study, load_study

BASE = "base"
Item = tuple[str, int]
"""A prompt's text and a seed."""

SCORES = pa.schema(
    [
        pa.field("adapter", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("clip_base", pa.float32(), nullable=False),
        pa.field("clip_adapted", pa.float32(), nullable=False),
        pa.field("lpips", pa.float32(), nullable=False),
    ]
)


def items_of(study: Study) -> list[Item]:
    """Return every prompt with every seed, in raymap's order."""
    return [(prompt.text, seed) for prompt in study.prompts for seed in study.seeds]


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut items into batches."""
    return [items[k : k + size] for k in range(0, len(items), size)]


class Judges:
    """The study's CLIP and LPIPS."""

    def __init__(self, study: Study) -> None:
        device = study.resources.device
        self.clip, self.lpips = ClipScorer(study.clip, device), LpipsScorer(study.lpips, device)

    def scored(self, adapter: str, items: Sequence[Item], base: np.ndarray, adapted: np.ndarray) -> pa.Table:
        """Return scores of pictures beside the base's."""
        prompts = [prompt for prompt, _ in items]
        columns = {
            "adapter": [adapter] * len(items),
            "prompt": prompts,
            "seed": [seed for _, seed in items],
            "clip_base": self.clip.cosines(prompts, self.clip.image_features(base)),
            "clip_adapted": self.clip.cosines(prompts, self.clip.image_features(adapted)),
            "lpips": self.lpips.distances(base, adapted),
        }
        return pa.table(columns, schema=SCORES)


class Drawer:
    """A diffusers pipeline that draws as the study says."""

    def __init__(self, study: Study) -> None:
        self.study = study
        dtype = getattr(torch, study.dtype)
        self.pipeline: StableDiffusionPipeline = load(resolve(study.base), study.resources.device, dtype)

    def draw(self, items: Sequence[Item]) -> np.ndarray:
        """Draw a batch: uint8 (N, H, W, 3)."""
        pictures = self.pipeline(
            [prompt for prompt, _ in items],
            num_inference_steps=self.study.sampler.steps,
            guidance_scale=self.study.sampler.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for _, seed in items],
            output_type="np",
        ).images
        return (pictures * 255).round().astype(np.uint8)

    @contextlib.contextmanager
    def loaded(self, folder: Path) -> Iterator[None]:
        """Load an adapter, and unload it."""
        if (folder / LORA_FILE).exists():
            self.pipeline.load_lora_weights(folder, weight_name=LORA_FILE)
            yield
            self.pipeline.unload_lora_weights()
        elif (folder / INVERSION_FILE).exists():
            self.pipeline.load_textual_inversion(folder / INVERSION_FILE)
            yield
            self.pipeline.unload_textual_inversion()
        else:
            held = load_file(folder / CUSTOM_DIFFUSION_FILE)
            weights = {n: p.data for n, p in self.pipeline.unet.named_parameters() if key_of(n) in held}
            before = {name: weight.clone() for name, weight in weights.items()}
            for name, weight in weights.items():
                weight.copy_(held[key_of(name)])
            yield
            for name, weight in weights.items():
                weight.copy_(before[name])


def work(drawer: Drawer, judges: Judges, batches: Sequence[Sequence[Item]]) -> pa.Table:
    """Draw batches by the base, then under each adapter, loaded once; score every pair."""
    base = [drawer.draw(batch) for batch in batches]
    tables = []
    for adapter in drawer.study.adapters:
        with drawer.loaded(adapter.path):
            adapted = [drawer.draw(batch) for batch in batches]
        for batch, own, other in zip(batches, base, adapted, strict=True):
            tables.append(judges.scored(adapter.short_name, batch, own, other))
    return pa.concat_tables([*tables, SCORES.empty_table()])


def main(program: str, study_path: Path, scores: Path) -> None:
    """Do a study's work as one of the programs; print the seconds that it took once the models were loaded."""
    study = load_study(study_path)
    if program == "ray-data":
        from raymap.bench.ray_data import by_ray_data

        start = time.perf_counter()
        table = by_ray_data(study)
    elif program == "accelerate":
        from accelerate import PartialState
        from accelerate.utils import gather_object

        torch.set_num_threads(study.resources.threads_per_worker)
        state = PartialState(cpu=study.resources.device == "cpu")
        if study.resources.device == "cuda":
            torch.cuda.set_device(state.local_process_index)
        drawer, judges = Drawer(study), Judges(study)
        start = time.perf_counter()
        with state.split_between_processes(chunks(items_of(study), study.batch_size)) as own:
            table = pa.concat_tables(gather_object([work(drawer, judges, own)]))
        if not state.is_main_process:
            return
    else:
        drawer, judges = Drawer(study), Judges(study)
        if program == "compiled":
            speed_up(drawer.pipeline, study.speed)
        start = time.perf_counter()
        table = work(drawer, judges, chunks(items_of(study), 1 if program == "one" else study.batch_size))
    write_atomically(scores, arrow_bytes(table))
    sys.stdout.write(f"{time.perf_counter() - start}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
