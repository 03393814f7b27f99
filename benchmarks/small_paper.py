"""Runs the paper's study at a small size: the committed jobs/paper.yaml, through `raymap run`, with random weights.

    python -m benchmarks.small_paper [--width 0.1] [--side 256] [--workers 2] [--device cpu|cuda] [--output FOLDER]

The study has two subjects, six prompts, two seeds, and the three methods' reference recipes with a few steps each. The
base has Stable Diffusion 1.5's classes, blocks and layers; `--width` multiplies its channels. The real size takes hours
on a CPU: `--width 1 --side 512`. Nothing comes from the hub: weights are random, references are drawn, and the judges
are the embedded ones. All deviations from the file are given as `--set` and `--limit`. The benchmark ends with an error
if anything is missing in the run folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from PIL import Image
from rich.console import Console

from raymap.base.folder import OUTLINES
from raymap.base.model import Base
from raymap.bench.models import SIZES, Size, quiet, random_base
from raymap.driver.cost import estimate
from raymap.driver.prepare import prepare
from raymap.embedded.world.subjects import CAPTAIN, STAR_CUP
from raymap.store.folder import RunFolder
from raymap.study.file import load_study

JOB = Path(__file__).parents[1] / "jobs" / "paper.yaml"
SUBJECTS = {"face-1": CAPTAIN, "teapot": STAR_CUP}
"""Subjects of the paper's study, and the drawn subjects that replace their photographs."""
PROMPTS, SEEDS = 6, 2
STEPS = {"textual_inversion": 2, "lora": 4, "custom_diffusion": 4}
GROUPS = 32
"""Number of groups of the group norms; channels are multiples of it."""


@dataclass(frozen=True)
class RunContents:
    """The contents of a run folder.

    `rows` counts rows of scores, `drawn` those that were drawn, `moved` those whose image is not the base's; `bytes` is
    the size of all files.
    """

    rows: int
    drawn: int
    moved: int
    bytes: int


def narrowed(width: float, side: int) -> Size:
    """Return Stable Diffusion 1.5's architecture with `width` times its channels, for images of `side` pixels."""
    real = SIZES["sd15"]

    def channels(component: dict[str, Any]) -> list[int]:
        return [max(1, round(n * width / GROUPS)) * GROUPS for n in component["block_out_channels"]]

    heads = max(1, round(real.text["num_attention_heads"] * width))
    hidden = heads * real.text["hidden_size"] // real.text["num_attention_heads"]
    return Size(
        real.unet
        | {"block_out_channels": channels(real.unet), "cross_attention_dim": hidden, "sample_size": side // 8},
        real.vae | {"block_out_channels": channels(real.vae), "sample_size": side},
        real.text | {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": heads},
    )


def write_study(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Copy the paper's study and draw references beside the copy, where it looks for them.

    Returns:
        the copy's path, and the entries of the subjects with references.
    """
    path = folder / JOB.name
    shutil.copy(JOB, path)
    subjects = [entry for entry in yaml.safe_load(path.read_text())["subjects"] if entry["name"] in SUBJECTS]
    for entry in subjects:
        random = np.random.default_rng(0)
        for reference in entry["references"]:
            (folder / reference).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(SUBJECTS[entry["name"]].render(random)).save(folder / reference)
    return path, subjects


def changes(subjects: list[dict[str, Any]], sampler_steps: int, workers: int, device: str) -> list[str]:
    """Return the overrides that scale the paper's study down, without its base."""
    methods = yaml.safe_load(JOB.read_text())["methods"]
    recipes: dict[str, dict[str, Any]] = {name: {"preset": methods[name], "steps": n} for name, n in STEPS.items()}
    recipes["custom_diffusion"]["class_images"] = 2
    on_cpu = ["dtype=float32", "resources.gpus_per_worker=0", "resources.cpus_per_worker=1"]
    return [
        "clip=embedded",
        "lpips=embedded",
        f"seeds={SEEDS}",
        "batch_size=4",
        f"sampler.steps={sampler_steps}",
        f"methods={json.dumps(recipes)}",
        f"subjects={json.dumps(subjects)}",
        f"resources.workers={workers}",
        *(on_cpu if device == "cpu" else ()),
    ]


def minutes(study: Path, overrides: list[str], workers: int) -> float:
    """Return the minutes that a dry run estimates, divided among workers."""
    return 60 * estimate(prepare(load_study(study, tuple(overrides), PROMPTS), dry=True)).hours / workers


def command(study: Path, overrides: list[str], output: Path) -> list[str]:
    """Return the command line of the run."""
    sets = [word for pair in overrides for word in ("--set", pair)]
    return [sys.executable, "-m", "raymap", "run", str(study), "--limit", str(PROMPTS), "--output", str(output), *sets]


def check(output: Path) -> RunContents:
    """Check a finished run folder; return its contents.

    Raises:
        RuntimeError: an image, a row or the report is missing; a control is not zero; a Textual Inversion was drawn.
    """
    scores = pl.concat([pl.read_ipc(path.read_bytes()) for path in sorted((output / "scores").glob("*.arrow"))])
    by_adapter = scores.group_by("adapter").len()
    inverted = scores.filter(pl.col("adapter").str.ends_with("-textual_inversion"))
    other = scores.filter(~pl.col("adapter").str.ends_with("-textual_inversion"))
    controls = scores.filter(pl.col("method") == "identity")
    moved = other.filter(pl.col("base_sha256") != pl.col("adapted_sha256"))
    statistics = json.loads((output / "statistics.json").read_text())
    with_images = {path.parts[-3] for path in (output / "images").glob("*/*/*.png")}
    required = {
        "a row for every adapter, prompt and seed": by_adapter["len"].to_list() == [PROMPTS * SEEDS] * 9,
        "every base image": len(list((output / "images" / "base").glob("*/*.png"))) == PROMPTS * SEEDS,
        "an image of every adapter that is drawn": set(other["adapter"]) <= with_images,
        "identity controls of exactly zero": statistics["identity_control"]["exact"] is True
        and controls["lpips"].to_list() == [0.0] * (3 * PROMPTS * SEEDS)
        and controls["clip_base"].equals(controls["clip_adapted"]),
        "every Textual Inversion proved": not inverted["drawn"].any()
        and inverted["base_sha256"].equals(inverted["adapted_sha256"]),
        "LoRA and Custom Diffusion drawn": other["drawn"].all(),
        "images that an adapter changed": set(moved["method"]) == {"lora", "custom_diffusion"},
        "a report": RunFolder(output).report.stat().st_size > 0,
    }
    if missing := [name for name, present in required.items() if not present]:
        raise RuntimeError(f"{output} lacks {'; '.join(missing)}")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return RunContents(scores.height, int(scores["drawn"].sum()), moved.height, size)


def main(arguments: list[str] | None = None) -> None:
    """Estimate the real size, run the study, check its run folder, and print time and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.1, help="factor of the real number of channels")
    parser.add_argument("--side", type=int, default=256, help="side of the images in pixels, a multiple of 64")
    parser.add_argument("--sampler-steps", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, help="folder that keeps base, study and run folder")
    args = parser.parse_args(arguments)
    console = Console(width=120, highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.output or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        study, subjects = write_study(folder)
        overrides = changes(subjects, args.sampler_steps, args.workers, args.device)
        flops = Base.at(OUTLINES / "sd15").flops()
        real = minutes(study, overrides, args.workers)
        console.print(
            f"real size: {flops.denoiser / 1e12:.3g} TFLOP per denoiser pass, {flops.decoder / 1e12:.3g} per decoding, "
            f"an estimated {real:.0f} minutes with workers={args.workers}"
        )
        quiet()
        random_base(narrowed(args.width, args.side)).save_pretrained(folder / "base")
        overrides.append(f"base={folder / 'base'}")
        expected = minutes(study, overrides, args.workers)
        console.print(f"width {args.width:g}, images of {args.side}x{args.side}: an estimated {expected:.2g} minutes")
        start = time.perf_counter()
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        subprocess.run(command(study, overrides, folder / "run"), env=environment, check=True)
        seconds = time.perf_counter() - start
        contents = check(folder / "run")
        images = PROMPTS * SEEDS + contents.rows
        console.print(
            f"{images} images in {seconds:.0f} s, {PROMPTS * SEEDS + contents.drawn} of them drawn, {contents.moved} "
            f"different from the base's; identity controls exactly zero, Textual Inversion proved; "
            f"{contents.bytes / 2**20:.1f} MiB"
        )


if __name__ == "__main__":
    main()
