"""Measures what the actor system costs: `raymap run` against a hand-written loop in one process, on the same cores.

    python -m benchmarks.overhead [--blocks 10] [--repeats 1]

Both draw the same batches with the same models, score them and write the same files. The loop calls Generator, Scorer
and RunFolder.commit one after another in a plain process. `raymap run` has driver, generator, scorer and reducer as
processes of their own, beside Ray's; its workers ask torch for huge pages, as always, which makes them some 5 % faster.
Both have the same cores and one thread per worker. There are three settings: one worker on two cores, where Ray's other
work finds room; one worker on one core, where everything takes turns; and two workers on two cores, compared with two
loops that share the blocks and have a core each. Images/s follow from the times at which score files appeared after
every worker's first block. Start-up is therefore not included; it has a column of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from raymap.actors.generator import Generator
from raymap.actors.scorer import Scorer
from raymap.actors.specs import GeneratorSpec, ScorerSpec
from raymap.driver.prepare import prepare
from raymap.embedded.world.subjects import SUBJECTS
from raymap.plan.blocks import Plan, Unit, make_plan
from raymap.store.folder import RunFolder
from raymap.study.adapter import BASE
from raymap.study.file import load_study
from raymap.study.model import Study

SEEDS = 4
BATCH = 16
PROMPTS = ("a red car on a street", "a man with black hair", "a brown bear on snow", "a city at night")
SETTINGS = ((1, (0, 1)), (1, (0,)), (2, (0, 1)))
"""The number of workers or loops, and the cores that they run on."""
COLORS = ("red", "blue", "green", "yellow", "purple", "gray", "white", "black", "brown", "orange")


def write_study(folder: Path, blocks: int) -> Path:
    """Write a study of three subjects and `blocks` blocks; return its path."""
    texts = [f"{text}, {color} light {k}" for k in range(blocks) for text, color in zip(PROMPTS, COLORS, strict=False)]
    raw = {
        "name": "overhead",
        "seeds": SEEDS,
        "sampler": {"steps": 10, "guidance_scale": 5.0},
        "prompts": {"objects": texts},
        "batch_size": BATCH,
        "identity_control": False,
        "subjects": [subject.entry(folder, n=2) for subject in SUBJECTS],
        "methods": {"lora": {"steps": 2, "learning_rate": 1e-3}},
        "resources": {"workers": 1},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def planned(study: Study, adapters: Path) -> tuple[Plan, Path]:
    """Return the study's plan and its base's folder; `adapters` is a run folder with the trained adapters."""
    from raymap.personalize.orders import info_of

    prepared = prepare(study)
    infos = tuple(info_of(order, RunFolder(adapters).adapter(order.name)) for order in prepared.orders)
    return make_plan(study, infos, {"base": prepared.base.sha256}), prepared.base.folder


def loop(path: Path, adapters: Path, output: Path, share: int, loops: int) -> None:
    """Draw, score and write the blocks `share`, `share + loops`, … in this process."""
    study = load_study(path)
    plan, base = planned(study, adapters)
    folder = RunFolder(output)
    folders = {a.name: RunFolder(adapters).adapter(a.name) for a in plan.adapters}
    generator = Generator(
        GeneratorSpec(base, folders, study.sampler, BATCH, study.dtype, False, False, threads=1, device="cpu")
    )
    scorer = Scorer(ScorerSpec(study.clip, study.lpips, output, plan.digest, keep_all=False, threads=1, device="cpu"))
    for block in plan.blocks[share::loops]:
        pixels, drawn = generator.draw(block, BASE)
        scored = scorer.score_base(block, pixels, drawn)
        folder.commit(Unit(block.index, BASE), scored.table, scored.features, scored.images, scored.device)
        for adapter in plan.adapters:
            adapted, drawn = generator.draw(block, adapter.name)
            scored = scorer.score_adapted(block, adapter, adapted, drawn, pixels)
            folder.commit(Unit(block.index, adapter.name), scored.table, scored.features, scored.images, scored.device)


def rate(output: Path, workers: int, started: float) -> tuple[float, float]:
    """Return images/s after every worker's first block, and the seconds from the start to that time."""
    times = sorted(p.stat().st_mtime for part in ("scores", "noise") for p in (output / part).glob("*.arrow"))
    warm = workers * (1 + len(SUBJECTS))
    return (len(times) - warm) * BATCH / (times[-1] - times[warm - 1]), times[warm - 1] - started


def run_loops(path: Path, adapters: Path, output: Path, loops: int, cores: tuple[int, ...]) -> tuple[float, float]:
    """Run loops at the same time, several on a core each; return the sum of images/s and the longest start-up."""
    started = time.time()
    processes = []
    for share in range(loops):
        own = cores if loops == 1 else (cores[share],)
        call = [sys.executable, "-m", "benchmarks.overhead", "--share", str(share), str(loops)]
        command = [*_pinned(own), *call, str(path), str(adapters), str(output / str(share))]
        processes.append(subprocess.Popen(command))
    if any(process.wait() for process in processes):
        raise RuntimeError("a loop failed")
    rates = [rate(output / str(share), 1, started) for share in range(loops)]
    return sum(r for r, _ in rates), max(s for _, s in rates)


def run_raymap(path: Path, adapters: Path, output: Path, workers: int, cores: tuple[int, ...]) -> tuple[float, float]:
    """Run `raymap run` on the given cores with trained adapters; return images/s and start-up seconds."""
    shutil.copytree(adapters, output)
    started = time.time()
    command = [str(Path(sys.executable).with_name("raymap")), "run", str(path), "--output", str(output)]
    pinned = [*_pinned(cores), *command, "--set", f"resources.workers={workers}"]
    subprocess.run(pinned, check=True, stdout=subprocess.DEVNULL)
    return rate(output, workers, started)


def _pinned(cores: tuple[int, ...]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores))]


def main() -> None:
    """Print the images/s of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=10, help="number of blocks")
    parser.add_argument("--repeats", type=int, default=1, help="number of repeats, a row each")
    parser.add_argument("--share", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if args.share:
        share, loops, path, adapters, output = args.share
        loop(Path(path), Path(adapters), Path(output), int(share), int(loops))
        return
    table = Table(title=f"{args.blocks} blocks of {BATCH} images x {1 + len(SUBJECTS)} models")
    for name in (
        "workers",
        "cores",
        "loop images/s",
        "raymap images/s",
        "ratio",
        "loop start-up s",
        "raymap start-up s",
    ):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        path = write_study(root, args.blocks)
        adapters = root / "adapters-only"
        train = [str(Path(sys.executable).with_name("raymap")), "train", str(path), "--output", str(adapters)]
        subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
        for repeat in range(args.repeats):
            for workers, cores in SETTINGS:
                name = f"{repeat}-{workers}-{len(cores)}"
                by_loop, loop_start = run_loops(path, adapters, root / f"loop-{name}", workers, cores)
                by_raymap, raymap_start = run_raymap(path, adapters, root / f"raymap-{name}", workers, cores)
                figures = (by_loop, by_raymap, by_raymap / by_loop, loop_start, raymap_start)
                table.add_row(str(workers), str(len(cores)), *(f"{figure:.2f}" for figure in figures))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
