"""Runs a study on a cluster that grows and shrinks, plots nodes and images, and compares bytes with one worker's.

    python -m benchmarks.autoscale [--chart autoscale.png] [--prompts 80] [--nodes 2]

The cluster is real, but its nodes are processes of this machine: Ray's autoscaler with its fake multi-node provider,
which starts and ends nodes as a cloud would. The autoscaler looks for waiting work only once a minute, so that nodes
arrive about as late as those of a cloud. `raymap run` starts on the head alone, and nodes arrive because blocks wait.
When half of the images are drawn, the node that arrived first is killed. After the last block the idle nodes leave. All
nodes share this machine's cores, which limit the images per second.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from matplotlib.figure import Figure
from ray.util import get_node_ip_address
from rich.console import Console

from benchmarks.chaos import files_of
from raymap.embedded.world.subjects import STAR_CUP

BIN = Path(sys.executable).parent
TICK_S = 0.5
PATIENCE_S = 300.0
AUTOSCALER_INTERVAL_S = 60
"""Seconds between two looks of the autoscaler at the waiting work."""
STORE = 100 * 2**20


def write_study(folder: Path, prompts: int, workers: int) -> Path:
    """Write a study of one subject with one block of three images per prompt; return its path."""
    raw = {
        "name": "autoscale",
        "seeds": 3,
        "sampler": {"steps": 20, "guidance_scale": 3.0},
        "prompts": {"objects": [f"{k} red cups on a table" for k in range(1, prompts + 1)]},
        "batch_size": 3,
        "subjects": [STAR_CUP.entry(folder, n=2)],
        "methods": {"lora": {"steps": 2, "learning_rate": 1e-3}},
        "resources": {"workers": {"min": 1, "max": workers}},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def configuration(nodes: int, address: str) -> dict[str, Any]:
    """Return the autoscaler's configuration: a head and up to `nodes` nodes, with one CPU each."""
    kind = {"node_config": {}, "resources": {"CPU": 1, "object_store_memory": STORE}}
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
             "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",
             "rsync_filter")  # fmt: skip
    return {
        "cluster_name": "autoscale",
        "max_workers": nodes,
        "upscaling_speed": float(nodes),
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"node_config": {}, "resources": {"CPU": 1}, "max_workers": 0},
            "worker": kind | {"min_workers": 0, "max_workers": nodes},
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in lists},
    }


@dataclass
class Cluster:
    """A head whose autoscaler starts nodes on this machine; the command line of all its processes contains `root`."""

    root: Path
    address: str
    environment: dict[str, str]

    def raylets(self) -> list[psutil.Process]:
        """Return the raylet process of every node, the head's first."""
        own = [p for p in psutil.process_iter(["cmdline", "create_time"]) if self._owns(p)]
        nodes = [p for p in own if p.info["cmdline"][0].endswith("/raylet")]
        return sorted(nodes, key=lambda p: p.info["create_time"])

    def _owns(self, process: psutil.Process) -> bool:
        return bool(process.info["cmdline"]) and any(str(self.root) in part for part in process.info["cmdline"])

    def end(self) -> None:
        """Kill all remaining processes of the cluster."""
        for process in psutil.process_iter(["cmdline"]):
            if self._owns(process) and process.pid != os.getpid():
                process.kill()


@contextmanager
def autoscaling(nodes: int) -> Iterator[Cluster]:
    """Return a context with a cluster that consists of a head with an autoscaler."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as temporary, _free_ports() as ports:
        gcs, client = ports
        address = f"{get_node_ip_address()}:{gcs}"
        file = Path(temporary) / "autoscaler.json"
        file.write_text(json.dumps(configuration(nodes, address)))
        environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "0",
            "AUTOSCALER_UPDATE_INTERVAL_S": str(AUTOSCALER_INTERVAL_S),
        }
        command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=1", f"--port={gcs}",
                   f"--ray-client-server-port={client}", "--include-dashboard=false", f"--temp-dir={temporary}",
                   f"--object-store-memory={STORE}", f"--autoscaling-config={file}", "--disable-usage-stats",
                   "--dashboard-agent-listen-port=0"]  # fmt: skip
        log = (Path(temporary) / "head.log").open("w+")
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        cluster = Cluster(Path(temporary), address, environment)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while "block forever" not in (output := (Path(temporary) / "head.log").read_text()):
                if head.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(output)
                time.sleep(TICK_S)
            yield cluster
        finally:
            head.terminate()
            head.wait(timeout=60)
            cluster.end()


@contextmanager
def _free_ports() -> Iterator[tuple[int, int]]:
    sockets = [socket.create_server(("", 0)) for _ in range(2)]
    ports = tuple(s.getsockname()[1] for s in sockets)
    for s in sockets:
        s.close()
    yield ports[0], ports[1]


@dataclass
class Trace:
    """Numbers of nodes and images over time, in seconds from the run's start, with a node's death and the run's end."""

    nodes: list[tuple[float, int]] = field(default_factory=list)
    images: list[tuple[float, int]] = field(default_factory=list)
    killed: float | None = None
    ended: float = 0.0

    @property
    def most_nodes(self) -> int:
        """The largest number of nodes."""
        return max(n for _, n in self.nodes)

    def rates(self) -> dict[int, float]:
        """Return images per second by number of nodes, from the first image to the last."""
        seconds, images = defaultdict[int, float](float), Counter[int]()
        last = self.images[-1][1]
        for (t, nodes), (until, _), (_, before), (_, after) in zip(
            self.nodes, self.nodes[1:], self.images, self.images[1:], strict=False
        ):
            if 0 < before < last:
                seconds[nodes] += until - t
                images[nodes] += after - before
        return {nodes: images[nodes] / seconds[nodes] for nodes in sorted(seconds)}

    def draw(self, path: Path) -> None:
        """Plot nodes and images over time into a PNG."""
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.step(*zip(*self.nodes, strict=True), where="post")
        above.set(ylabel="nodes, head included", ylim=(0, self.most_nodes + 0.5))
        below.plot(*zip(*self.images, strict=True))
        below.set(xlabel="seconds from the start of `raymap run`", ylabel="images committed", ylim=(0, None))
        for axes in (above, below):
            axes.grid(alpha=0.3)
            for at, what in ((self.killed, "a node is killed"), (self.ended, "the run ends")):
                if at is not None:
                    axes.axvline(at, color="gray", linestyle="--", linewidth=1)
                    if axes is above:
                        axes.annotate(what, (at, 0.1), rotation=90, ha="right", fontsize=8, color="gray")
        figure.savefig(path, dpi=120)


def run_single(study: Path, output: Path) -> None:
    """Run the study on this machine, without the cluster, with one worker."""
    command = [str(BIN / "raymap"), "run", str(study), "--output", str(output), "--set", "resources.workers=1"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def run_scaling(cluster: Cluster, study: Path, output: Path, images: int) -> Trace:
    """Run the study on the cluster, kill a node when half the images are drawn, watch until idle nodes have left."""
    trace, start = Trace(), time.monotonic()
    command = [str(BIN / "raymap"), "run", str(study), "--output", str(output)]
    log = (cluster.root / "run.log").open("w")
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
    driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    while driver.poll() is None or (len(cluster.raylets()) > 1 and time.monotonic() - start < trace.ended + PATIENCE_S):
        now, raylets = time.monotonic() - start, cluster.raylets()
        trace.nodes.append((now, len(raylets)))
        trace.images.append((now, _committed(output)))
        if trace.killed is None and trace.images[-1][1] > images / 2 and len(raylets) > 2:
            raylets[1].send_signal(signal.SIGKILL)
            trace.killed = now
        if driver.poll() is None:
            trace.ended = now
        time.sleep(TICK_S)
    trace.nodes.append((time.monotonic() - start, len(cluster.raylets())))
    if driver.returncode:
        raise RuntimeError((cluster.root / "run.log").read_text())
    return trace


def _committed(output: Path) -> int:
    ledger = output / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines() if ledger.exists() else []
    return sum(len(json.loads(line)["images"]) for line in lines if line.endswith(b"}"))


def main() -> None:
    """Print what happened and plot it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chart", type=Path, default=Path("autoscale.png"), help="path of the chart")
    parser.add_argument("--prompts", type=int, default=80, help="number of prompts, a block each")
    parser.add_argument("--nodes", type=int, default=2, help="largest number of nodes beside the head")
    args = parser.parse_args()
    console = Console(width=120, highlight=False)
    with tempfile.TemporaryDirectory() as temporary, autoscaling(args.nodes) as cluster:
        root = Path(temporary)
        study = write_study(root, args.prompts, 1 + args.nodes)
        trace = run_scaling(cluster, study, root / "scaled", images=3 * 3 * args.prompts)
        trace.draw(args.chart)
        run_single(study, root / "single")
        same = files_of(root / "scaled") == files_of(root / "single")
    second = next(t for t, n in trace.nodes if n > 1)
    full = next(t for t, n in trace.nodes if n == trace.most_nodes)
    console.print(f"1 node at first, the second after {second:.0f} s, {trace.most_nodes} after {full:.0f} s")
    console.print("no node was killed" if trace.killed is None else f"a node killed at {trace.killed:.0f} s")
    console.print(
        f"the run ended after {trace.ended:.0f} s; {trace.nodes[-1][1]} node remained at {trace.nodes[-1][0]:.0f} s"
    )
    rates = ", ".join(f"{rate:.1f} with {nodes}" for nodes, rate in trace.rates().items())
    console.print(f"images per second by number of nodes: {rates}")
    console.print(
        f"scores and noise floor compared with one worker's: {'equal, byte by byte' if same else 'DIFFERENT'}"
    )
    console.print(f"chart: {args.chart}")


if __name__ == "__main__":
    main()
