"""Runs a small study again and again on a Ray cluster of several nodes while things are killed, and compares bytes.

    python -m benchmarks.chaos [--runs 50] [--seed 0]

The cluster is real: a head and two nodes of one CPU each, on this machine, as `ray.cluster_utils` starts them. Each run
is the `raymap run` command with RAY_ADDRESS set, disturbed at random times: SIGKILL ends the driver (and the command is
given again), a generator, a scorer or the reducer; a node is removed or added; the object store is filled. A run passes
if noise.arrow and every file under scores/ equal those of an undisturbed run, byte by byte, and each adapter, prompt
and seed has exactly one row.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import ray
import yaml
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from raymap.embedded.world.subjects import STAR_CUP, THERMAL

ACTIONS = ("driver", "generator", "scorer", "reducer", "node removed", "node added", "object store filled")
NODES = 2
STORE = 200 * 2**20
PROMPTS = {"objects": ["a red car on a street", "a blue cup"], "scenes": ["a city at night", "a beach"]}


def write_study(folder: Path) -> Path:
    """Write a study whose adapters take only a moment to train; return its path."""
    raw = {
        "name": "chaos",
        "seeds": 3,
        "sampler": {"steps": 6, "guidance_scale": 3.0},
        "prompts": PROMPTS,
        "batch_size": 3,
        "subjects": [subject.entry(folder, n=2) for subject in (STAR_CUP, THERMAL)],
        "methods": {"lora": {"steps": 2, "learning_rate": 1e-3}, "textual_inversion": {"steps": 2}},
        "resources": {"workers": {"min": 1, "max": 3}},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def files_of(run: Path) -> dict[str, bytes]:
    """Return the files that have to be equal, by name: every score file and that of the noise floor."""
    paths = [*sorted((run / "scores").glob("*.arrow")), run / "noise.arrow"]
    return {path.name: path.read_bytes() for path in paths}


@dataclass
class Outcome:
    """One disturbed run: its seconds, the number of times each action was done to it, and what was wrong in the end."""

    seconds: float
    done: Counter[str] = field(default_factory=Counter)
    wrong: str = ""


class Chaos:
    """A cluster on this machine, whose processes and nodes are killed at random."""

    def __init__(self, study: Path) -> None:
        self.study = study
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE},
        )
        self.nodes = [self._node() for _ in range(NODES)]
        ray.init(address=self.cluster.address, log_to_driver=False)

    def _node(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def command(self, output: Path) -> subprocess.Popen[str]:
        """Start `raymap run` on the cluster."""
        command = [str(Path(sys.executable).with_name("raymap")), "run", str(self.study), "--output", str(output)]
        environment = os.environ | {"RAY_ADDRESS": self.cluster.address}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def undisturbed(self, output: Path) -> float:
        """Run the study without disturbing it; return its seconds."""
        start = time.perf_counter()
        output_text, _ = (process := self.command(output)).communicate(timeout=600)
        if process.returncode:
            raise RuntimeError(output_text)
        return time.perf_counter() - start

    def disturbed(self, output: Path, rng: random.Random, actions: int, expected: dict[str, bytes]) -> Outcome:
        """Run the study, disturb it with `actions` random actions, and compare its files with the expected ones."""
        start = time.perf_counter()
        outcome = Outcome(0.0)
        process = self.command(output)
        while True:
            try:
                output_text, _ = process.communicate(timeout=rng.uniform(2, 12) if actions else 600)
            except subprocess.TimeoutExpired:
                if not actions:
                    process.kill()
                    outcome.wrong = "hangs"
                    break
                action = rng.choice(ACTIONS)
                if self._act(action, process, rng):
                    outcome.done[action] += 1
                    actions -= 1
                continue
            if process.returncode == -signal.SIGKILL:
                process = self.command(output)
                continue
            if process.returncode:
                outcome.wrong = f"exit code {process.returncode}: {output_text[-500:]}"
            break
        outcome.seconds = time.perf_counter() - start
        while len(self.nodes) < NODES:
            self.nodes.append(self._node())
        outcome.wrong = outcome.wrong or _differences(output, expected)
        return outcome

    def _act(self, action: str, driver: subprocess.Popen[str], rng: random.Random) -> bool:
        """Do one action; return whether it was possible."""
        if action == "driver":
            driver.kill()
        elif action == "node removed":
            if len(self.nodes) < NODES:
                return False
            self.cluster.remove_node(self.nodes.pop(rng.randrange(len(self.nodes))))
        elif action == "node added":
            if len(self.nodes) > NODES:
                return False
            self.nodes.append(self._node())
        elif action == "object store filled":
            fill = ray.remote(_fill).options(num_cpus=0)
            fill.remote(int(0.8 * STORE), 3.0)
        else:
            actors = [p for p in psutil.Process().children(recursive=True) if _is_actor(p, action)]
            if not actors:
                return False
            rng.choice(actors).kill()
        return True

    def close(self) -> None:
        """End the cluster."""
        ray.shutdown()
        self.cluster.shutdown()


def _is_actor(process: psutil.Process, name: str) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:  # the process has ended meanwhile
        return False
    return bool(command) and command[0].startswith(f"ray::{name.capitalize()}")


def _fill(size: int, seconds: float) -> None:
    objects = [ray.put(np.zeros(size // 8, np.uint8)) for _ in range(8)]
    time.sleep(seconds)
    del objects


def _differences(output: Path, expected: dict[str, bytes]) -> str:
    """Return what differs from the undisturbed run; empty if the bytes are equal and no row is duplicated."""
    files = files_of(output)
    if files.keys() != expected.keys():
        return f"files differ: {sorted(files.keys() ^ expected.keys())}"
    if different := [name for name in files if files[name] != expected[name]]:
        return f"bytes differ: {different}"
    scores = pl.concat([pl.read_ipc(path) for path in (output / "scores").glob("*.arrow")])
    duplicates = scores.height - scores.unique(["adapter", "prompt_id", "seed"]).height
    return f"{duplicates} rows are duplicates" if duplicates else ""


def main() -> None:
    """Print what was done to the runs, what it cost, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50, help="number of disturbed runs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random actions")
    args = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        chaos = Chaos(write_study(root))
        undisturbed_s = chaos.undisturbed(root / "undisturbed")
        expected = files_of(root / "undisturbed")
        outcomes = []
        for k in range(args.runs):
            rng = random.Random(f"{args.seed} {k}")
            outcomes.append(chaos.disturbed(root / f"run-{k}", rng, rng.randint(1, 5), expected))
            done = ", ".join(f"{n} x {name}" for name, n in outcomes[-1].done.items())
            console.print(
                f"run {k}: {outcomes[-1].seconds:.0f} s, {done}: {outcomes[-1].wrong or 'equal'}", highlight=False
            )
        chaos.close()
    table = Table(title=f"{args.runs} disturbed runs; the undisturbed one took {undisturbed_s:.0f} s")
    table.add_column("action")
    table.add_column("times", justify="right")
    for action in ACTIONS:
        table.add_row(action, str(sum(outcome.done[action] for outcome in outcomes)))
    console.print(table)
    wrong = [outcome.wrong for outcome in outcomes if outcome.wrong]
    mean = float(np.mean([outcome.seconds for outcome in outcomes]))
    console.print(
        f"not equal: {len(wrong)} of {args.runs}; mean {mean:.0f} s, {mean / undisturbed_s:.2f} times undisturbed",
        highlight=False,
    )


if __name__ == "__main__":
    main()
