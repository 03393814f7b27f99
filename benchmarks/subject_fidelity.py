"""Measures whether a run's adapters draw their subjects: CLIP image similarity to held-out references.

    python -m benchmarks.subject_fidelity RUN [--images 16] [--sheet sheet.png]

Held-out references are the images that lie beside a subject's references but are not used; if there are none, the
references themselves are compared. The adapted model draws the caption that it was trained with. The base, for
comparison, draws the same caption with the class word in place of the subject's phrase.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from raymap.adapters.card import CARD
from raymap.adapters.read import load_adapter
from raymap.adapters.resident import AdapterStore
from raymap.base.folder import resolve
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.drawing.prompts import PromptEncoder
from raymap.drawing.sampling import draw
from raymap.personalize.references.read import read_reference
from raymap.scoring.clip import ClipScorer
from raymap.study.model import Study
from raymap.study.subject import Subject

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def similarity(clip: ClipScorer, pixels: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return each image's mean cosine to the references, (N,)."""
    return (clip.image_features(pixels) @ clip.image_features(references).T).mean(1).numpy()


def held_out(subject: Subject) -> list[Path]:
    """Return the unused images beside a subject's references, or the references if there are none."""
    used = {path.resolve() for path in subject.references}
    beside = {path.resolve() for folder in {p.parent for p in used} for path in folder.iterdir()}
    return sorted(path for path in beside - used if path.suffix in SUFFIXES) or sorted(used)


def main() -> None:
    """Print one row per adapter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--images", type=int, default=16, help="images per model and adapter")
    parser.add_argument(
        "--sheet", type=Path, help="path of a contact sheet: rows of references, base and adapted images"
    )
    args = parser.parse_args()
    study = Study.model_validate(yaml.safe_load((args.run / "study.yaml").read_text()))
    folder = resolve(study.base)
    pipeline = load(folder)
    store, clip = AdapterStore(pipeline), ClipScorer(study.clip)
    encoder = PromptEncoder(pipeline, store)
    table = Table(title=f"cosine to held-out references, {args.images} images per model, mean ± standard error")
    for name in ("adapter", "prompt", "held out", "base", "adapted", "difference"):
        table.add_column(name)
    rows = []
    subjects = {subject.name: subject for subject in study.subjects}
    size = pipeline.vae.config.sample_size
    for path in sorted((args.run / "adapters").iterdir()):
        card = json.loads((path / CARD).read_text())
        if card["subject"] not in subjects:
            continue
        store.add(path.name, load_adapter(path, Base.at(folder).skeleton))
        references = np.stack([read_reference(p, size) for p in held_out(subjects[card["subject"]])])
        plain = card["instance_prompt"].replace(card["phrase"], card["class_word"])
        pixels, cosines = [], []
        for model, prompt in ((None, plain), (path.name, card["instance_prompt"])):
            store.swap(model)
            prompts, seeds = [prompt] * args.images, tuple(range(args.images))
            pixels.append(draw(pipeline, encoder, prompts, seeds, study.sampler, args.images))
            cosines.append(similarity(clip, pixels[-1], references))
        store.restore()
        base, adapted = cosines
        cells = [f"{x.mean():.3f} ± {x.std() / len(x) ** 0.5:.3f}" for x in (base, adapted, adapted - base)]
        table.add_row(path.name, card["instance_prompt"], str(len(references)), *cells)
        shown = references[np.arange(8) % len(references)]
        rows += [np.concatenate(list(part[:8]), 1) for part in (shown, *pixels)]
    Console(width=120).print(table)
    if args.sheet:
        sheet = Image.fromarray(np.concatenate(rows))
        sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(args.sheet)


if __name__ == "__main__":
    main()
