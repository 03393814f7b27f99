"""What jobs/paper.yaml would take, by raymap's own planning, on a machine that has neither its base nor its references.

Stand-ins take their places: Stable Diffusion 1.5's configurations without weights, from which shapes and FLOPs follow,
and pictures of noise. Neither decides how many images there are, or how much drawing one takes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raymap.cost import estimate
from raymap.embedded.model import PIPELINE
from raymap.prepare import Prepared, prepare
from raymap.study import load_study

JOB = Path(__file__).parents[1] / "jobs" / "paper.yaml"
ACCELERATORS = ("A100", "H100")


def planned(job: Path = JOB) -> dict[str, Any]:
    """Return images, those proved identical, bytes on disk, and hours of one device of each of ACCELERATORS."""
    with tempfile.TemporaryDirectory(prefix="raymap-plan-") as temporary:
        prepared = prepare_without(job, Path(temporary))
        costs = [estimate(_on(prepared, kind)) for kind in ACCELERATORS]
    study = prepared.study
    controls = sum(order.subject is None for order in prepared.orders)
    return {
        "study": study.name,
        "prompts": len(study.prompts),
        "seeds": len(study.seeds),
        "adapters": len(prepared.orders) - controls,
        "controls": controls,
        "steps": study.sampler.steps,
        "dtype": study.dtype,
        "images": costs[0].images,
        "proved": prepared.proved,
        "drawn": costs[0].drawn,
        "bytes": costs[0].bytes,
        "devices": [{"on": c.on, "drawing_h": c.drawing_h, "training_h": c.training_h} for c in costs],
    }


def prepare_without(job: Path, folder: Path) -> Prepared:
    """Prepare a study on Stable Diffusion 1.5 with stand-ins for base, judges and references, laid into a folder."""
    base = write_architecture(folder / "base")
    path = Path(shutil.copy(job, folder))
    stand_ins = (f"base={base}", "clip=embedded", "lpips=embedded")
    study = load_study(path, stand_ins)
    for number, reference in enumerate(r for subject in study.subjects for r in subject.references):
        reference.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(reference)
    return prepare(study)


def write_architecture(folder: Path) -> Path:
    """Write the configurations of Stable Diffusion 1.5's components and a tokenizer, without weights."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig

    from raymap.bench.models import SIZES

    size = SIZES["sd15"]
    with torch.device("meta"):
        UNet2DConditionModel(**size.unet).save_config(folder / "unet")
        AutoencoderKL(**size.vae, norm_num_groups=32, latent_channels=4).save_config(folder / "vae")
    CLIPTextConfig(**size.text).save_pretrained(folder / "text_encoder")
    shutil.copytree(PIPELINE / "tokenizer", folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def _on(prepared: Prepared, kind: str) -> Prepared:
    study = prepared.study
    resources = study.resources.model_copy(update={"accelerator_type": kind})
    return replace(prepared, study=study.model_copy(update={"resources": resources}))
