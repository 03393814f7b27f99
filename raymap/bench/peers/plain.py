"""A study's work with diffusers alone: how the peers draw and score, without raymap's generator and scorer.

They load adapters with diffusers' own loaders. Only Custom Diffusion, which diffusers loads without any effect, is
applied by copying its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from raymap.adapters.custom_diffusion import CUSTOM_DIFFUSION_FILE, key_of
from raymap.adapters.lora import LORA_FILE
from raymap.adapters.textual_inversion import INVERSION_FILE
from raymap.base.model import open_base
from raymap.base.pipeline import load
from raymap.scoring.clip import ClipScorer
from raymap.scoring.perceptual import LpipsScorer
from raymap.study.model import Study

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
    """Return every prompt with every seed, in the order of a run."""
    return [(prompt.text, seed) for prompt in study.prompts for seed in study.seeds]


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut items into batches."""
    return [items[k : k + size] for k in range(0, len(items), size)]


class Judges:
    """The study's judges: CLIP and LPIPS."""

    def __init__(self, study: Study) -> None:
        device = study.resources.device
        self.clip, self.lpips = ClipScorer(study.clip, device), LpipsScorer(study.lpips, device)

    def score(self, adapter: str, items: Sequence[Item], base: np.ndarray, adapted: np.ndarray) -> pa.Table:
        """Score adapted images against the base's, each uint8 (N, H, W, 3); return rows of the schema SCORES."""
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
        base = open_base(study.base, study.weights)
        self.pipeline: StableDiffusionPipeline = load(base.folder, study.resources.device, dtype, file=base.file)

    def draw(self, items: Sequence[Item]) -> np.ndarray:
        """Draw a batch: uint8 (N, H, W, 3)."""
        images = self.pipeline(
            [prompt for prompt, _ in items],
            num_inference_steps=self.study.sampler.steps,
            guidance_scale=self.study.sampler.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for _, seed in items],
            output_type="np",
        ).images
        return (images * 255).round().astype(np.uint8)

    @contextlib.contextmanager
    def loaded(self, folder: Path) -> Iterator[None]:
        """Return a context in which the adapter of a folder is loaded."""
        if (folder / LORA_FILE).exists():
            self.pipeline.load_lora_weights(folder, weight_name=LORA_FILE)
            yield
            self.pipeline.unload_lora_weights()
        elif (folder / INVERSION_FILE).exists():
            self.pipeline.load_textual_inversion(folder / INVERSION_FILE)
            yield
            self.pipeline.unload_textual_inversion()
        else:
            tensors = load_file(folder / CUSTOM_DIFFUSION_FILE)
            weights = {n: p.data for n, p in self.pipeline.unet.named_parameters() if key_of(n) in tensors}
            before = {name: weight.clone() for name, weight in weights.items()}
            for name, weight in weights.items():
                weight.copy_(tensors[key_of(name)])
            yield
            for name, weight in weights.items():
                weight.copy_(before[name])


def work(drawer: Drawer, judges: Judges, batches: Sequence[Sequence[Item]]) -> pa.Table:
    """Draw batches by the base, then under each adapter, which is loaded once; return the scores of all pairs."""
    base = [drawer.draw(batch) for batch in batches]
    tables = []
    for adapter in drawer.study.adapters:
        with drawer.loaded(Path(adapter.path)):
            adapted = [drawer.draw(batch) for batch in batches]
        for batch, own, other in zip(batches, base, adapted, strict=True):
            tables.append(judges.score(adapter.short_name, batch, own, other))
    return pa.concat_tables([*tables, SCORES.empty_table()])
