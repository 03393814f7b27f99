"""A contest: `raymap run` and its peers do the same study, each as a command of its own, on the same cores.

The study has one adapter of each method, with random weights: a LoRA, a Custom Diffusion and a Textual Inversion. The
token of the last occurs in no prompt, so that raymap proves its images to be the base's and does not draw them.
`raymap run --draw-anyway` draws them, too, and shows raymap without the proof.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import torch
import yaml
from rich import box
from rich.table import Table
from safetensors.torch import save_file

from raymap.adapters.custom_diffusion import CUSTOM_DIFFUSION_FILE, key_of
from raymap.adapters.textual_inversion import INVERSION_FILE
from raymap.base.model import open_base
from raymap.base.pipeline import load
from raymap.bench.models import quiet, random_base, random_lora, write_lora
from raymap.bench.record import span
from raymap.bench.setups import Setup
from raymap.errors import IncompleteRunError
from raymap.scoring.names import RANDOM
from raymap.store.files import files_in, write_atomically
from raymap.store.folder import RunFolder, arrow_bytes
from raymap.study.suite import limited, read_suite

SEEDS = 4
MODELS = 4
"""The base and one adapter of each method."""
PROGRAMS = {
    "one": "diffusers, one image at a time",
    "batched": "diffusers, batched",
    "compiled": "diffusers, batched, compiled",
    "accelerate": "diffusers, batches split by accelerate",
    "ray-data": "diffusers in Ray Data's map_batches",
    "raymap": "raymap run",
    "raymap-draws-all": "raymap run --draw-anyway (no proof)",
}
ROWS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("program", pa.string(), nullable=False),
        pa.field("repeat", pa.int64(), nullable=False),
        pa.field(
            "images",
            pa.int64(),
            nullable=False,
            metadata={"meaning": "images of the study, including those proved to be the base's"},
        ),
        pa.field("drawn", pa.int64(), nullable=False, metadata={"meaning": "images that were drawn"}),
        pa.field("seconds", pa.float64(), nullable=False, metadata={"meaning": "time of the whole command"}),
        pa.field(
            "work_s", pa.float64(), nullable=False, metadata={"meaning": "time without starting and loading models"}
        ),
        pa.field(
            "difference",
            pa.float64(),
            nullable=False,
            metadata={"meaning": "largest difference of a score from raymap's"},
        ),
        pa.field("versions", pa.string(), nullable=False),
    ]
)


def write_contest(setup: Setup, prompts: int, folder: Path) -> Path:
    """Write the contest's adapters and study into a folder; return the study's path.

    On a CPU the study gets as many workers as the cores have room for.
    """
    if setup.base.startswith(RANDOM):
        base = str((folder / "base").absolute())
        pipeline = random_base(setup.base.removeprefix(RANDOM))
        pipeline.save_pretrained(base)
    else:
        quiet()
        base, opened = setup.base, open_base(setup.base)
        pipeline = load(opened.folder, file=opened.file)
    unet, seeded = pipeline.unet, torch.Generator().manual_seed(0)
    adapters = folder / "adapters"
    write_lora(random_lora(unet, 0), adapters / "lora")
    for name in ("inversion", "custom"):
        (adapters / name).mkdir(exist_ok=True)
    width = pipeline.text_encoder.config.hidden_size
    save_file({"<contest>": torch.randn(width, generator=seeded)}, adapters / "inversion" / INVERSION_FILE)
    changed = {
        key_of(name): weight * (1 + 0.3 * torch.randn(weight.shape, generator=seeded))
        for name, weight in unet.named_parameters()
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    save_file(changed, adapters / "custom" / CUSTOM_DIFFUSION_FILE)
    suite = limited(read_suite("embedded", "contest", folder), prompts)
    gpus = {"gpus_per_worker": 1} if setup.device == "cuda" else {}
    cores = (os.cpu_count() or 1) // setup.threads
    study = {
        "name": "contest",
        "base": base,
        "clip": setup.clip,
        "lpips": setup.lpips,
        "prompts": [{"text": prompt.text, "category": prompt.category} for prompt in suite],
        "seeds": SEEDS,
        "sampler": {"steps": setup.steps, "guidance_scale": setup.guidance_scale},
        "adapters": [str((adapters / name).absolute()) for name in ("lora", "inversion", "custom")],
        "identity_control": False,
        "batch_size": setup.batch_size,
        "dtype": setup.dtype,
        "speed": setup.speed.model_dump(),
        "resources": {
            "workers": setup.workers if gpus else max(1, cores),
            "threads_per_worker": setup.threads,
            **gpus,
        },
    }
    path = folder / "study.yaml"
    write_atomically(path, yaml.safe_dump(study, sort_keys=False, allow_unicode=True).encode())
    return path


def available(setup: Setup) -> list[str]:
    """Return the programs that can take part.

    Ray Data needs pandas (`pip install 'ray[data]'`); diffusers compiled needs a setup that compiles.
    """
    missing = {"ray-data": not importlib.util.find_spec("pandas"), "compiled": setup.compile == "none"}
    return [name for name in PROGRAMS if not missing.get(name)]


class Contest:
    """One study that every program does several times; `contest.arrow` in a folder keeps the measurements."""

    def __init__(self, setup: Setup, prompts: int, folder: Path) -> None:
        self.setup = setup
        self.images = MODELS * SEEDS * prompts
        self.key = hashlib.sha256(f"{setup.key} {prompts} {SEEDS}".encode()).hexdigest()[:16]
        self.folder = folder / f"contest-{self.key}"
        self.study = self.folder / "study.yaml"
        if not self.study.exists():
            write_contest(setup, prompts, self.folder)
        self.path = folder / "contest.arrow"
        self.versions = ", ".join(
            f"{name} {version(name)}" for name in ("raymap", "torch", "diffusers", "ray", "accelerate")
        )
        self.rows = pa.ipc.open_file(self.path.read_bytes()).read_all().to_pylist() if self.path.exists() else []

    def measured(self) -> list[dict[str, Any]]:
        """Return the rows of this contest that were measured with these versions."""
        return [row for row in self.rows if (row["key"], row["versions"]) == (self.key, self.versions)]

    def run(self, program: str, repeat: int) -> None:
        """Run a program and record a row, unless that row has been recorded before.

        Raises:
            IncompleteRunError: the program failed; the message has the end of its output.
        """
        if any((row["program"], row["repeat"]) == (program, repeat) for row in self.measured()):
            return
        folder = self.folder / f"{program}-{repeat}-{os.getpid()}"
        folder.mkdir()
        start = time.perf_counter()
        process = subprocess.run(
            self._command(program, folder), env=self._environment(program), capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        if process.returncode:
            raise IncompleteRunError(
                f"{PROGRAMS[program]} failed: {' '.join((process.stdout + process.stderr).split())[-600:]}"
            )
        if program.startswith("raymap"):
            work_s = json.loads((folder / "run" / "run.json").read_text())["sessions"][-1]["drawing_s"]
            scores, drawn = self._raymap_scores(folder / "run")
        else:
            work_s = float(process.stdout.split()[-1])
            peer = pa.ipc.open_file((folder / "scores.arrow").read_bytes()).read_all()
            scores, drawn = _by_pair(peer), self.images
        row = {"key": self.key, "program": program, "repeat": repeat, "images": self.images, "drawn": drawn,
               "seconds": seconds, "work_s": work_s, "difference": self._difference(scores),
               "versions": self.versions}  # fmt: skip
        self.rows.append(row)
        write_atomically(self.path, arrow_bytes(pa.Table.from_pylist(self.rows, ROWS)))

    def _command(self, program: str, folder: Path) -> list[str]:
        if program.startswith("raymap"):
            anyway = ["--draw-anyway"] if program == "raymap-draws-all" else []
            return [sys.executable, "-m", "raymap", "run", str(self.study), "--output", str(folder / "run"), *anyway]
        split = ["torch.distributed.run", "--standalone", f"--nproc-per-node={self._workers()}", "-m"]
        peer = ["raymap.bench.peers", program, str(self.study), str(folder / "scores.arrow")]
        return [sys.executable, "-m", *(split if program == "accelerate" else []), *peer]

    def _environment(self, program: str) -> dict[str, str]:
        """Return the environment: a plain script uses all cores as threads of one process, the others pin their own."""
        threads = (
            self._workers() * self.setup.threads if program in ("one", "batched", "compiled") else self.setup.threads
        )
        return os.environ | {"OMP_NUM_THREADS": str(threads)}

    def _workers(self) -> int:
        return int(yaml.safe_load(self.study.read_text())["resources"]["workers"])

    def _raymap_scores(self, run: Path) -> tuple[dict[tuple[str, str, int], tuple[float, ...]], int]:
        """Return a run's scores by adapter, prompt and seed, and the number of images that were drawn."""
        texts = {p["id"]: p["text"] for p in yaml.safe_load((run / "study.yaml").read_text())["prompts"]}
        files = files_in(RunFolder(run).scores, ".arrow")
        table = pa.concat_tables([pa.ipc.open_file(path.read_bytes()).read_all() for path in files])
        prompts = pa.array([texts[identifier] for identifier in table["prompt_id"].to_pylist()])
        drawn = sum(table["drawn"].to_pylist()) + self.images // MODELS
        return _by_pair(table.append_column("prompt", prompts)), drawn

    def _difference(self, scores: dict[tuple[str, str, int], tuple[float, ...]]) -> float:
        """Return the largest difference from raymap's scores; the first program to run is raymap and writes them."""
        path = self.folder / "raymap.json"
        if not path.exists():
            write_atomically(path, json.dumps([[*pair, *values] for pair, values in scores.items()]).encode())
        first = {(a, p, s): values for a, p, s, *values in json.loads(path.read_text())}
        if first.keys() != scores.keys():
            raise IncompleteRunError(
                f"the program scored {len(scores)} pairs that are not the {len(first)} pairs of raymap"
            )
        return max(abs(x - y) for pair in first for x, y in zip(first[pair], scores[pair], strict=True))


def _by_pair(table: pa.Table) -> dict[tuple[str, str, int], tuple[float, ...]]:
    """Return (clip_base, clip_adapted, lpips) by (adapter, prompt, seed)."""
    return {
        (row["adapter"], row["prompt"], row["seed"]): (row["clip_base"], row["clip_adapted"], row["lpips"])
        for row in table.select(["adapter", "prompt", "seed", "clip_base", "clip_adapted", "lpips"]).to_pylist()
    }


def table(contest: Contest) -> Table:
    """Return medians over repeats, one row per program; speed-ups compare whole commands."""
    setup = contest.setup
    settings = f"{setup.steps} steps, batch size {setup.batch_size}, {setup.dtype}, {setup.device}"
    medians = Table(
        title=f"{contest.images} images of {setup.base}, {settings}; {contest.versions}", box=box.SIMPLE_HEAD
    )
    medians.add_column("program")
    for name in ("drawn", "total,\ns", "min–\nmax", "images/s", "speed-up\nover one", "over\nbatched", "work,\ns",
                 "scores\ndiffer"):  # fmt: skip
        medians.add_column(name, justify="right")
    rows = {p: [r for r in contest.measured() if r["program"] == p] for p in PROGRAMS}
    total = {p: median(row["seconds"] for row in own) for p, own in rows.items() if own}
    for program, seconds in total.items():
        own = rows[program]
        medians.add_row(
            PROGRAMS[program],
            str(own[0]["drawn"]),
            f"{seconds:.1f}",
            span([row["seconds"] for row in own]),
            f"{contest.images / seconds:.2f}",
            *(f"{total[other] / seconds:.2f}" if other in total else "" for other in ("one", "batched")),
            f"{median(row['work_s'] for row in own):.1f}",
            f"{max(row['difference'] for row in own):.1g}",
        )
    return medians


def order(programs: Sequence[str]) -> list[str]:
    """Return the programs with raymap first, since the others' scores are compared with its own."""
    return sorted(programs, key=lambda name: name != "raymap")
