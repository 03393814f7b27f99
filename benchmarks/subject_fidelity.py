"""Whether a run's adapters draw their subjects: CLIP-image similarity to the references, adapted beside base.

    python benchmarks/subject_fidelity.py RUN [--images 16] [--sheet sheet.png]

Base and adapted images have the same instance prompt (trigger included) and the same seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from raymap.adapters.folder import load_adapter
from raymap.adapters.skeleton import skeleton_of
from raymap.adapters.store import AdapterStore
from raymap.diffusion.base import load, resolve
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.personalize.references import read_reference
from raymap.scoring.clip import ClipScorer
from raymap.study import Study


def similarity(clip: ClipScorer, pixels: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return each picture's mean cosine to the references, (N,)."""
    return (clip.image_features(pixels) @ clip.image_features(references).T).mean(1).numpy()


def main() -> None:
    """Print a row a subject."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--sheet", type=Path, help="save references, base and adapted images, a row each")
    args = parser.parse_args()
    study = Study.model_validate(yaml.safe_load((args.run / "study.yaml").read_text()))
    folder = resolve(study.base)
    pipeline = load(folder)
    store, clip = AdapterStore(pipeline), ClipScorer(study.clip)
    encoder = PromptEncoder(pipeline, store)
    table = Table(title=f"cosine to the references, {args.images} images a row, mean ± standard error")
    for name in ("subject", "prompt", "base", "adapted", "difference"):
        table.add_column(name)
    rows = []
    for subject in study.subjects:
        assert study.methods.lora is not None
        prompt = study.methods.lora.instance_prompt(subject)
        adapter = args.run / "adapters" / f"{subject.name}-lora"
        store.add(subject.name, load_adapter(adapter, skeleton_of(folder)))
        size = pipeline.vae.config.sample_size
        references = np.stack([read_reference(path, size) for path in subject.references])
        pixels, cosines = [], []
        for model in (None, subject.name):
            store.swap(model)
            prompts, seeds = [prompt] * args.images, tuple(range(args.images))
            pixels.append(draw(pipeline, encoder, prompts, seeds, study.sampler, args.images))
            cosines.append(similarity(clip, pixels[-1], references))
        store.restore()
        base, adapted = cosines
        cells = [f"{x.mean():.3f} ± {x.std() / len(x) ** 0.5:.3f}" for x in (base, adapted, adapted - base)]
        table.add_row(subject.name, prompt, *cells)
        shown = references[np.arange(8) % len(references)]
        rows += [np.concatenate(list(part[:8]), 1) for part in (shown, *pixels)]
    Console(width=120).print(table)
    if args.sheet:
        sheet = Image.fromarray(np.concatenate(rows))
        sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(args.sheet)


if __name__ == "__main__":
    main()
