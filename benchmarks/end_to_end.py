"""Images/s of `raymap run` beside a plain script, on the same study, one after the other in one run.

    python benchmarks/end_to_end.py [--prompts 12] [--seeds 2]

The plain script is what a researcher would write first: a diffusers pipeline that draws one image at a time (LoRA
loaded by diffusers), then open_clip and lpips over all pairs. Both have all cores; adapters are trained beforehand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image
from rich.console import Console
from rich.table import Table

from raymap.embedded.judges import load_clip, load_lpips
from raymap.embedded.model import PIPELINE
from raymap.embedded.subjects import STAR_CUP, THERMAL
from raymap.recipes import EMBEDDED
from raymap.study import load_study


def raymap(*args: str | Path | int) -> float:
    """Run a raymap command and return its wall time in seconds."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).with_name("raymap")), *(str(a) for a in args)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def write_study(path: Path, **keys: Any) -> Path:
    """Write a study file."""
    path.write_text(yaml.safe_dump(keys))
    return path


def plain(study_path: Path, adapters: list[Path]) -> tuple[int, float]:
    """Draw and score the study one image at a time; return images and seconds, models loaded before the clock."""
    study = load_study(study_path)
    pipeline = StableDiffusionPipeline.from_pretrained(PIPELINE, dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    clip, preprocess, tokenizer = load_clip()
    metric = load_lpips()
    images: dict[tuple[str, str, int], Image.Image] = {}

    def draw_all(name: str) -> None:
        for prompt in study.prompts:
            for seed in study.seeds:
                images[name, prompt.text, seed] = pipeline(
                    prompt.text,
                    num_inference_steps=study.sampler.steps,
                    guidance_scale=study.sampler.guidance_scale,
                    generator=torch.Generator("cpu").manual_seed(seed),
                ).images[0]

    def cosine(prompt: str, image: Image.Image) -> float:
        a = clip.encode_text(tokenizer([prompt]), normalize=True)
        b = clip.encode_image(preprocess(image)[None], normalize=True)
        return float((a @ b.T).item())

    def tensor(image: Image.Image) -> torch.Tensor:
        return preprocess.transforms[-2](image)[None] * 2 - 1

    start = time.perf_counter()
    draw_all("base")
    for folder in adapters:
        pipeline.load_lora_weights(folder)
        draw_all(folder.name)
        pipeline.unload_lora_weights()
    with torch.no_grad():
        for (name, prompt, seed), image in images.items():
            base = images["base", prompt, seed]
            abs(cosine(prompt, image) - cosine(prompt, base))
            if name != "base":
                metric(tensor(base), tensor(image))
    return len(images), time.perf_counter() - start


def main() -> None:
    """Print both figures and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        subjects = [
            {
                "name": s.name,
                "category": s.category,
                "class_word": s.class_word,
                "references": [str(p) for p in s.write_references(root / s.name)],
            }
            for s in (STAR_CUP, THERMAL)
        ]
        common = {"suite": "embedded", "seeds": args.seeds, "identity_control": False, "batch_size": 16}
        recipe = {"lora": EMBEDDED["lora"] | {"steps": 30}}
        training = write_study(root / "train.yaml", name="train", subjects=subjects, methods=recipe, **common)
        raymap("run", training, "--output", root / "train", "--limit", 1)
        adapters = sorted((root / "train" / "adapters").iterdir())
        study = write_study(root / "study.yaml", name="bench", adapters=[str(a) for a in adapters], **common)
        raw = yaml.safe_load(study.read_text())
        whole = raymap("run", study, "--output", root / "run", "--limit", args.prompts)
        session = json.loads((root / "run" / "run.json").read_text())["sessions"][-1]
        prompts = yaml.safe_load((root / "run" / "study.yaml").read_text())["prompts"]
        del raw["suite"]
        raw["prompts"] = [{"text": p["text"], "category": p["category"]} for p in prompts]
        images, seconds = plain(write_study(root / "plain.yaml", **raw), adapters)
    table = Table(title=f"{images} images, {torch.get_num_threads()} cores")
    for name in ("", "seconds", "images/s", "ratio"):
        table.add_column(name)
    rate = images / seconds
    for name, s in (
        ("plain script, models loaded", seconds),
        ("raymap run, drawing and scoring, actors' start included", session["drawing_s"]),
        ("raymap run, the whole command", whole),
    ):
        table.add_row(name, f"{s:.1f}", f"{images / s:.2f}", f"{images / s / rate:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
