"""Writes run folders of synthetic scores and images, as `raymap run` leaves them, to test and time reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image

from raymap.plan.blocks import BASE, Item
from raymap.store.folder import RunFolder, arrow_bytes, pixel_digest
from raymap.store.schema import NOISE, SCORES, stamped
from raymap.study.suite import CATEGORIES

METHODS = {"textual_inversion": 0.0, "lora": 1.0, "custom_diffusion": 2.5, "identity": 0.0}
"""How far each method shifts scores; with 0 the images are the base's own."""


@dataclass(frozen=True)
class SyntheticRun:
    """What a synthetic run folder contains.

    `adapters` are (name, method, subject, subject category), `prompts` are (text, category), `side` is that of the
    images in pixels. With `keep_all` every adapted image is saved, otherwise one per prompt and adapter. `cards` holds
    entries of adapter.json by adapter name.
    """

    adapters: Sequence[tuple[str, str, str, str]]
    prompts: Sequence[tuple[str, str]]
    seeds: int = 4
    side: int = 32
    keep_all: bool = False
    cards: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def full_size(prompts: int = 200, subjects: int = 5, seeds: int = 10, side: int = 128) -> SyntheticRun:
    """Return a run in the paper's shape: 3 methods × 3 categories × `subjects` adapters, prompts of six categories."""
    adapters = [
        (f"{category}-{k}-{method}", method, f"{category}-{k}", category)
        for method in ("textual_inversion", "lora", "custom_diffusion")
        for category in ("face", "object", "style")
        for k in range(subjects)
    ]
    things = ("harbour", "violin", "orchard", "lantern", "bridge", "kettle", "meadow", "tower")
    texts = [
        (
            f"a {('small', 'bright', 'quiet', 'old')[k % 4]} {things[k % 8]} of {CATEGORIES[k % 6]}, view {k}",
            CATEGORIES[k % 6],
        )
        for k in range(prompts)
    ]
    return SyntheticRun([*adapters, ("identity-lora", "identity", "identity", "control")], texts, seeds, side)


def write_run(folder: Path, contents: SyntheticRun) -> Path:
    """Write scores, noise, study, record, cards and images into a folder; equal contents give equal bytes."""
    rng = np.random.default_rng(3)
    run = RunFolder(folder)
    prompts = [(f"p{k:03d}", *prompt) for k, prompt in enumerate(contents.prompts)]
    n_prompts, n_seeds = len(prompts), contents.seeds
    fragile = rng.gamma(2.0, 0.5, n_prompts)
    clip = rng.normal(0.25, 0.02, (n_prompts, n_seeds))
    bases = [[_random_image(rng, contents.side) for _ in range(n_seeds)] for _ in prompts]
    for (prompt, _, _), images in zip(prompts, bases, strict=True):
        run.save_images(BASE, [Item(prompt, "", "", seed) for seed in range(n_seeds)], np.stack(images))
    (folder / "scores").mkdir(parents=True)
    for number, (name, method, subject, subject_category) in enumerate(contents.adapters):
        size = METHODS[method] * (1.4 if subject_category == "style" else 1.0) * rng.uniform(0.6, 1.4)
        shift = size * fragile[:, None] * rng.normal(-0.012, 0.01, clip.shape)
        lpips = np.clip(size * rng.normal(0.25, 0.06, clip.shape) * fragile[:, None] ** 0.5, 0, 1)
        drawn = method != "textual_inversion"
        rows = []
        for p, (prompt, _, category) in enumerate(prompts):
            worst = int(lpips[p].argmax())
            for k in range(n_seeds):
                base = bases[p][k]
                keep = drawn and (contents.keep_all or k == worst)
                adapted = _partly_replaced(base, float(lpips[p, k]), rng) if keep else base
                if keep and "/" not in name:
                    run.save_images(name, [Item(prompt, "", "", k)], adapted[None])
                rows.append(
                    {
                        "adapter": name, "method": method, "subject": subject, "subject_category": subject_category,
                        "prompt_id": prompt, "prompt_category": category, "seed": k, "clip_base": clip[p, k],
                        "clip_adapted": clip[p, k] + shift[p, k], "lpips": lpips[p, k],
                        "base_sha256": pixel_digest(base), "adapted_sha256": pixel_digest(adapted), "drawn": drawn,
                        "device": "cpu",
                    }
                )  # fmt: skip
        table = pa.Table.from_pylist(rows, stamped(SCORES, "synthetic"))
        (folder / "scores" / f"{number:03d}.arrow").write_bytes(arrow_bytes(table))
    noise = [
        {"prompt_id": prompt, "prompt_category": category, "seed_a": k, "seed_b": k + 1,
         "e_sem": abs(rng.normal(0, 0.02)), "e_per": rng.uniform(0.2, 0.5)}
        for prompt, _, category in prompts for k in range(min(3, n_seeds - 1))
    ]  # fmt: skip
    (folder / "noise.arrow").write_bytes(arrow_bytes(pa.Table.from_pylist(noise, stamped(NOISE, "synthetic"))))
    suite = [{"id": prompt, "text": text, "category": category} for prompt, text, category in prompts]
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": "synthetic", "prompts": suite}, allow_unicode=True))
    (folder / "run.json").write_text(json.dumps({"study": "synthetic", "digest": "synthetic"}))
    for name, card in contents.cards.items():
        target = folder / "adapters" / name.replace("/", "-")
        target.mkdir(parents=True)
        (target / "adapter.json").write_text(json.dumps({"name": name, **card}))
    return folder


def _random_image(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return grainy fields of colour, coarse and fine, uint8 (side, side, 3): as hard to compress as a photograph."""
    image = rng.integers(-8, 9, (side, side, 3), dtype=np.int16)
    for cells, weight in ((5, 0.6), (max(side // 4, 5), 0.4)):
        field = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image += (weight * np.asarray(field.resize((side, side), Image.Resampling.BICUBIC))).astype(np.int16)
    return np.clip(image, 1, 255).astype(np.uint8)


def _partly_replaced(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return an image in which another one replaces the upper `share` of the rows."""
    other = _random_image(rng, len(image))
    rows = round(share * len(image))
    return np.concatenate([other[:rows], image[rows:]]) if rows else image
