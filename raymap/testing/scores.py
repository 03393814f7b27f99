"""Writes run folders with given scores and without images, for tests of comparing, judging and reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from raymap.store.folder import arrow_bytes
from raymap.store.schema import NOISE, SCORES
from raymap.study.suite import CATEGORIES

PAIRS = ((0, 1), (0, 2), (1, 2))


def write_scores(
    folder: Path,
    shift: np.ndarray,
    lpips: np.ndarray,
    *,
    adapters: tuple[str, ...] | None = None,
    subjects: tuple[str, ...] | None = None,
    subject_categories: tuple[str, ...] | None = None,
    methods: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
    texts: tuple[str, ...] | None = None,
    study: dict[str, Any] | None = None,
    image: str = "base",
) -> Path:
    """Write `scores/` and `noise.arrow` into a folder; return it.

    The category of prompt p is number p mod 6. The base's cosines depend only on the prompt's text and the seed.

    Args:
        shift, lpips: each (prompts, adapters, seeds): the adapted image's cosine minus the base image's, and LPIPS.
        texts: the prompts' texts.
        study: keys of a study.yaml with the prompts, which is written too; None: there is no such file.
        image: the beginning of the base images' digests.
    """
    prompts, count, k = shift.shape
    adapters = adapters or tuple(f"adapter-{a}" for a in range(count))
    subjects = subjects or adapters
    seeds = seeds or tuple(range(k))
    texts = texts or tuple(f"prompt {p}" for p in range(prompts))
    rows, noise = [], []
    for p in range(prompts):
        ids = {"prompt_id": f"p{p:03d}", "prompt_category": CATEGORIES[p % 6]}
        own = abs(hash_of(texts[p]))
        base = 0.2 + 0.1 * np.random.default_rng((own, 7)).random(1000)
        for a, name in enumerate(adapters):
            category = subject_categories[a] if subject_categories else "unknown"
            method = methods[a] if methods else "lora"
            about = {"adapter": name, "method": method, "subject": subjects[a], "subject_category": category}
            for j, seed in enumerate(seeds):
                values = {"clip_base": base[seed], "clip_adapted": base[seed] + shift[p, a, j], "lpips": lpips[p, a, j]}
                digests = {"base_sha256": f"{image}-{own}-{seed}", "adapted_sha256": f"{name}-{own}-{seed}"}
                rows.append({**about, **ids, "seed": seed, **values, **digests, "drawn": True, "device": "cpu AVX2"})
        for one, other in PAIRS:
            if other < k:
                per = 0.5 + 0.01 * np.random.default_rng((own, seeds[one], seeds[other])).random()
                e_sem = abs(base[seeds[one]] - base[seeds[other]])
                noise.append({**ids, "seed_a": seeds[one], "seed_b": seeds[other], "e_sem": e_sem, "e_per": per})
    (folder / "scores").mkdir(parents=True)
    (folder / "scores" / "00000-all.arrow").write_bytes(arrow_bytes(pa.Table.from_pylist(rows, SCORES)))
    (folder / "noise.arrow").write_bytes(arrow_bytes(pa.Table.from_pylist(noise, NOISE)))
    if study is not None:
        named = [{"id": f"p{p:03d}", "text": text, "category": CATEGORIES[p % 6]} for p, text in enumerate(texts)]
        (folder / "study.yaml").write_text(yaml.safe_dump({**study, "prompts": named}, allow_unicode=True))
    return folder


def hash_of(text: str) -> int:
    """Return a number that depends only on the text, in every process."""
    return int.from_bytes(text.encode()[:64], "little") % 2**31
