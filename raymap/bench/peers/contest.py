"""Programs side by side: `raymap run` and its peers do one study, each as a command of its own, on the same cores.

The study has an adapter of each method, with random weights: a LoRA, a Custom Diffusion, and a Textual Inversion whose
token stands in no prompt, so that raymap proves its images to be the base's and does not draw them. `raymap run
--draw-anyway` draws them: that is raymap without the proof.
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
from raymap.base.folder import resolve
from raymap.base.pipeline import load
from raymap.bench.models import RANDOM, quiet, random_base, random_lora, write_lora
from raymap.bench.record import span
from raymap.bench.setups import Setup
from raymap.errors import IncompleteRunError
from raymap.store.files import files_in, write_atomically
from raymap.store.folder import RunFolder, arrow_bytes
from raymap.study.suite import limited, read_suite

SEEDS = 4
MODELS = 4
"""The base and an adapter of each method."""
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
        pa.field("images", pa.int64(), nullable=False, metadata={"meaning": "images of the study, proved ones too"}),
        pa.field("drawn", pa.int64(), nullable=False, metadata={"meaning": "images that were drawn"}),
        pa.field("seconds", pa.float64(), nullable=False, metadata={"meaning": "of the whole command"}),
        pa.field("work_s", pa.float64(), nullable=False, metadata={"meaning": "without starting and loading models"}),
        pa.field("difference", pa.float64(), nullable=False, metadata={"meaning": "largest, of a score to raymap's"}),
        pa.field("versions", pa.string(), nullable=False),
    ]
)


def write_contest(setup: Setup, prompts: int, folder: Path) -> Path:
    """Write the adapters and the study; return the study's path.

    On a CPU there are as many workers as there are cores for them.
    """
    if setup.base.startswith(RANDOM):
        base = str((folder / "base").absolute())
        pipeline = random_base(setup.base.removeprefix(RANDOM))
        pipeline.save_pretrained(base)
    else:
        quiet()
        base, pipeline = setup.base, load(resolve(setup.base))
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
    """Return a setup's programs that can run here: Ray Data needs pandas (`pip install 'ray[data]'`)."""
    without = {"ray-data": not importlib.util.find_spec("pandas"), "compiled": setup.compile == "none"}
    return [name for name in PROGRAMS if not without.get(name)]


class Contest:
    """One study, every program, several times; `contest.arrow` in a folder keeps what was measured."""

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

    def own(self) -> list[dict[str, Any]]:
        """Return this contest's rows, of these versions."""
        return [row for row in self.rows if (row["key"], row["versions"]) == (self.key, self.versions)]

    def run(self, program: str, repeat: int) -> None:
        """Run a program unless its row is there.

        Raises:
            IncompleteRunError: it failed; the end of what it said is in the message.
        """
        if any((row["program"], row["repeat"]) == (program, repeat) for row in self.own()):
            return
        place = self.folder / f"{program}-{repeat}-{os.getpid()}"
        place.mkdir()
        scores = place / "scores.arrow"
        start = time.perf_counter()
        done = subprocess.run(
            self._command(program, place), env=self._environment(program), capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise IncompleteRunError(
                f"{PROGRAMS[program]} failed: {' '.join((done.stdout + done.stderr).split())[-600:]}"
            )
        if program.startswith("raymap"):
            work_s = json.loads((place / "run" / "run.json").read_text())["sessions"][-1]["drawing_s"]
            found, drawn = self._of_raymap(place / "run")
        else:
            work_s = float(done.stdout.split()[-1])
            found, drawn = _by_pair(pa.ipc.open_file(scores.read_bytes()).read_all()), self.images
        row = {"key": self.key, "program": program, "repeat": repeat, "images": self.images, "drawn": drawn,
               "seconds": seconds, "work_s": work_s, "difference": self._difference(found),
               "versions": self.versions}  # fmt: skip
        self.rows.append(row)
        write_atomically(self.path, arrow_bytes(pa.Table.from_pylist(self.rows, ROWS)))

    def _command(self, program: str, place: Path) -> list[str]:
        if program.startswith("raymap"):
            anyway = ["--draw-anyway"] if program == "raymap-draws-all" else []
            return [sys.executable, "-m", "raymap", "run", str(self.study), "--output", str(place / "run"), *anyway]
        split = ["torch.distributed.run", "--standalone", f"--nproc-per-node={self._workers()}", "-m"]
        peer = ["raymap.bench.peers", program, str(self.study), str(place / "scores.arrow")]
        return [sys.executable, "-m", *(split if program == "accelerate" else []), *peer]

    def _environment(self, program: str) -> dict[str, str]:
        """A plain script has all the cores as threads of one process; the others pin theirs."""
        threads = (
            self._workers() * self.setup.threads if program in ("one", "batched", "compiled") else self.setup.threads
        )
        return os.environ | {"OMP_NUM_THREADS": str(threads)}

    def _workers(self) -> int:
        return int(yaml.safe_load(self.study.read_text())["resources"]["workers"])

    def _of_raymap(self, run: Path) -> tuple[dict[tuple[str, str, int], tuple[float, ...]], int]:
        """Return scores by adapter, prompt and seed, and how many images were drawn."""
        texts = {p["id"]: p["text"] for p in yaml.safe_load((run / "study.yaml").read_text())["prompts"]}
        files = files_in(RunFolder(run).scores, ".arrow")
        table = pa.concat_tables([pa.ipc.open_file(path.read_bytes()).read_all() for path in files])
        prompts = pa.array([texts[identifier] for identifier in table["prompt_id"].to_pylist()])
        drawn = sum(table["drawn"].to_pylist()) + self.images // MODELS
        return _by_pair(table.append_column("prompt", prompts)), drawn

    def _difference(self, found: dict[tuple[str, str, int], tuple[float, ...]]) -> float:
        """Return the largest difference to raymap's scores, which are those of the first that was run."""
        path = self.folder / "raymap.json"
        if not path.exists():
            write_atomically(path, json.dumps([[*pair, *values] for pair, values in found.items()]).encode())
        first = {(a, p, s): values for a, p, s, *values in json.loads(path.read_text())}
        if first.keys() != found.keys():
            raise IncompleteRunError(f"{len(found)} pairs were scored, and not the {len(first)} of raymap's")
        return max(abs(x - y) for pair in first for x, y in zip(first[pair], found[pair], strict=True))


def _by_pair(table: pa.Table) -> dict[tuple[str, str, int], tuple[float, ...]]:
    return {
        (row["adapter"], row["prompt"], row["seed"]): (row["clip_base"], row["clip_adapted"], row["lpips"])
        for row in table.select(["adapter", "prompt", "seed", "clip_base", "clip_adapted", "lpips"]).to_pylist()
    }


def table(contest: Contest) -> Table:
    """Return medians over repeats, a row a program; ratios are of whole commands."""
    setup = contest.setup
    said = f"{setup.steps} steps, batch size {setup.batch_size}, {setup.dtype}, {setup.device}"
    made = Table(title=f"{contest.images} images of {setup.base}, {said}; {contest.versions}", box=box.SIMPLE_HEAD)
    made.add_column("program")
    for name in ("drawn", "whole,\ns", "least–\nmost", "images/s", "x one", "x\nbatched", "work,\ns", "scores\ndiffer"):
        made.add_column(name, justify="right")
    times = {p: [r for r in contest.own() if r["program"] == p] for p in PROGRAMS}
    whole = {p: median(row["seconds"] for row in rows) for p, rows in times.items() if rows}
    for program, seconds in whole.items():
        rows = times[program]
        made.add_row(
            PROGRAMS[program],
            str(rows[0]["drawn"]),
            f"{seconds:.1f}",
            span([row["seconds"] for row in rows]),
            f"{contest.images / seconds:.2f}",
            *(f"{whole[other] / seconds:.2f}" if other in whole else "" for other in ("one", "batched")),
            f"{median(row['work_s'] for row in rows):.1f}",
            f"{max(row['difference'] for row in rows):.1g}",
        )
    return made


def order(programs: Sequence[str]) -> list[str]:
    """Return programs with raymap first: its scores are what the others' are compared with."""
    return sorted(programs, key=lambda name: name != "raymap")
