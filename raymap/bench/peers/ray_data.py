"""A peer that does a study's work with Ray Data: rows are images, which actors of map_batches draw, then score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from raymap.base.device import pin
from raymap.bench.peers.plain import BASE, SCORES, Drawer, Judges, items_of
from raymap.study.model import Study


class Draw:
    """Draws the images of a batch of rows, adapter by adapter."""

    def __init__(self, study: Study) -> None:
        pin(study.resources.threads_per_worker)
        self.drawer = Drawer(study)
        self.folders = {adapter.short_name: Path(adapter.path) for adapter in study.adapters}

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        images: dict[int, np.ndarray] = {}
        for adapter in dict.fromkeys(batch["adapter"]):
            rows = np.flatnonzero(batch["adapter"] == adapter)
            items = [(str(batch["prompt"][k]), int(batch["seed"][k])) for k in rows]
            if adapter == BASE:
                drawn = self.drawer.draw(items)
            else:
                with self.drawer.loaded(self.folders[adapter]):
                    drawn = self.drawer.draw(items)
            images |= dict(zip(rows.tolist(), drawn, strict=True))
        return batch | {"pixels": np.stack([images[k] for k in range(len(images))])}


class Score:
    """Scores a batch of rows against the base's images."""

    def __init__(self, study: Study, base: dict[tuple[str, int], np.ndarray]) -> None:
        pin(study.resources.threads_per_worker)
        self.judges, self.base = Judges(study), base

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        items = [(str(prompt), int(seed)) for prompt, seed in zip(batch["prompt"], batch["seed"], strict=True)]
        own = np.stack([self.base[item] for item in items])
        table = self.judges.score("", items, own, np.ascontiguousarray(batch["pixels"]))
        scores = {name: table[name].to_numpy() for name in ("clip_base", "clip_adapted", "lpips")}
        return {name: batch[name] for name in ("adapter", "prompt", "seed")} | scores


def by_ray_data(study: Study) -> pa.Table:
    """Draw and score a study in `workers.max` actors; return rows of the schema SCORES."""
    resources, size = study.resources, study.batch_size
    names = [BASE, *(adapter.short_name for adapter in study.adapters)]
    rows = [{"adapter": name, "prompt": p, "seed": seed} for name in names for p, seed in items_of(study)]
    options: dict[str, Any] = {
        "batch_size": size,
        "concurrency": resources.workers.max,
        "num_cpus": resources.bundle.get("CPU", 0),
        "num_gpus": resources.bundle.get("GPU", 0),
    }
    ray.init("local", include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size))
        drawn = dataset.map_batches(Draw, fn_constructor_args=(study,), **options).materialize()
        base, adapted = {}, []
        for row in drawn.iter_rows():
            if row["adapter"] == BASE:
                base[row["prompt"], row["seed"]] = row["pixels"]
            else:
                adapted.append(row)
        scored = ray.data.from_items(adapted, override_num_blocks=-(-len(adapted) // size)).map_batches(
            Score, fn_constructor_args=(study, base), **options
        )
        return pa.Table.from_pylist(scored.take_all(), SCORES)
    finally:
        ray.shutdown()
