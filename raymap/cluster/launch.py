"""Starts Ray and the actors: the only place that turns plain classes into remote ones."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray._private.state import state as cluster_state
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from raymap.actors.reducer import Reducer
from raymap.actors.specs import GeneratorSpec, ScorerSpec
from raymap.cluster.shells import Generator, Scorer, Trainer
from raymap.errors import IncompleteRunError, InputError
from raymap.store.folder import RunFolder
from raymap.study.model import Resources

WORKER_STARTS = 8
"""How many starts of workers, or trainers, may fail in a row before a run ends as incomplete."""
SCORER_SHARE = 0.25
"""The share of a worker's GPU that Ray books for its scorer (both see the whole of it)."""
ENVIRONMENT = {"env_vars": {"THP_MEM_ALLOC_ENABLE": "1"}}
"""Torch asks for huge pages on a CPU: fewer misses in address translation draw some 5 % faster, to the same bits."""
UNRECORDED = {"enable_task_events": False}
"""Ray keeps no record of every call, which it holds in the driver by the megabyte: the ledger has one a batch."""


@contextlib.contextmanager
def runtime(resources: Resources) -> Iterator[None]:
    """Hold a Ray runtime: the cluster that RAY_ADDRESS names (as in a submitted job), else a local one.

    Raises:
        InputError: this machine lacks what a worker needs.
        IncompleteRunError: SIGTERM came, which `ray job stop` and most schedulers send.
    """
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.set()
        raise KeyboardInterrupt  # the only exception that gets through Ray's waiting calls

    address = os.environ.get("RAY_ADDRESS")
    cpus = max(os.cpu_count() or 1, round(resources.workers.max * resources.bundle.get("CPU", 0)))
    local = {} if address else {"num_cpus": cpus, "include_dashboard": False, "resources": resources.custom or None}
    ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    signal.signal(signal.SIGTERM, stop)  # ray.init has just set a handler that exits with the signal's number
    try:
        if not address and (missing := _missing(resources)):
            raise InputError("resources", f"this machine has no {missing}", "ask for less, or submit to a cluster")
        yield
    except KeyboardInterrupt:
        if not stopped.is_set():
            raise
        raise IncompleteRunError("stopped; the same command goes on") from None
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _missing(resources: Resources) -> str | None:
    """Return the first resource of a worker that no machine without an autoscaler will ever have."""
    there = ray.cluster_resources()
    return next((name for name, amount in resources.bundle.items() if there.get(name, 0) < amount), None)


def check_shared_memory(batch_bytes: int, batches: int, resources: Resources) -> None:
    """Check that each node's object store holds what the workers that fit on it have in flight, `batches` each.

    Raises:
        InputError: when it doesn't, with what to change.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    share = math.ceil(resources.workers.max / len(nodes))
    for node in nodes:
        fitting = [int(node.get(name, 0) / amount) for name, amount in resources.bundle.items()]
        workers, store = min(share, *fitting), node.get("object_store_memory", 0)
        if workers * batches * batch_bytes > store:
            problem = (
                f"{workers} workers have {workers * batches} batches of {batch_bytes / 2**20:.0f} MiB in flight, the "
                f"object store of a node holds {store / 2**20:.0f} MiB"
            )
            remedy = "lower `batch_size` or `workers`, or give more shared memory (docker run --shm-size)"
            raise InputError("resources", problem, remedy)


@dataclass
class Worker:
    """A generator and the scorer beside it, in one placement group, so on one node."""

    generator: Any
    scorer: Any
    place: PlacementGroup
    ready: Any
    info: dict[str, Any] | None = None
    leaving: bool = False

    @property
    def node(self) -> str | None:
        """The node's id, once the worker has its place."""
        nodes: dict[int, str] = placement_group_table(self.place).get("bundles_to_node_id", {})
        return nodes.get(0) or None

    def stop(self) -> None:
        """End both actors and give their place back."""
        for actor in (self.generator, self.scorer):
            ray.kill(actor)
        remove_placement_group(self.place)


def start_worker(generator: GeneratorSpec, scorer: ScorerSpec, resources: Resources) -> Worker:
    """Ask Ray for a worker; `ready` is a reference that resolves once both actors have loaded."""
    return start_pair(Generator, generator, Scorer, scorer, resources)


def start_pair(draws: type, drawing: Any, scores: type, scoring: Any, resources: Resources) -> Worker:
    """Ask Ray for a generator and a scorer of given classes on one node, each built from its specification.

    The scorer shares its generator's GPU.
    """
    place = placement_group([resources.bundle or {"CPU": 0.001}], strategy="STRICT_PACK")
    here = PlacementGroupSchedulingStrategy(placement_group=place)
    common = {"scheduling_strategy": here, "runtime_env": ENVIRONMENT, **UNRECORDED}
    bundle = dict(resources.bundle)
    cpus, gpus = bundle.pop("CPU", 0), bundle.pop("GPU", 0)
    share = SCORER_SHARE * gpus
    generator = ray.remote(draws).options(
        num_cpus=cpus,
        num_gpus=gpus - share,
        resources=bundle,
        **common,
    )
    scorer = ray.remote(scores).options(num_cpus=0, num_gpus=share, **common)
    actor = generator.remote(drawing)
    beside = scorer.remote(scoring)
    return Worker(actor, beside, place, actor.ready.remote(beside.ready.remote()))


@dataclass
class Starts:
    """Waits for actors' first answers, and counts how many starts failed in a row; `what` names the actors."""

    what: str
    failed: int = 0

    def answer(self, ref: Any) -> Any:
        """Return what an actor that is up answers; None where it was lost before.

        Raises:
            IncompleteRunError: it cannot start by its own fault, or too many were lost in a row.
        """
        try:
            answer = ray.get(ref)
        except RayError as error:
            lost = not isinstance(error, RayTaskError) or isinstance(error.cause, RayError)
            if not lost or InputError.__name__ in str(error):
                raise IncompleteRunError(f"a {self.what} cannot start: {cause(error)}") from error
            self.failed += 1
            if self.failed > WORKER_STARTS:
                raise IncompleteRunError(f"{self.what}s do not start: {cause(error)}") from error
            return None
        self.failed = 0
        return answer


def start_reducer(folder: RunFolder) -> Any:
    """Start the reducer beside the driver; it may restart and repeat a commit, which changes nothing."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here, **UNRECORDED}
    return ray.remote(Reducer).options(**options).remote(folder)


def start_trainer(base: str | Path, resources: Resources) -> Any:
    """Start a trainer with a worker's share of the machine."""
    bundle = dict(resources.bundle)
    cpus, gpus = bundle.pop("CPU", 0), bundle.pop("GPU", 0)
    actor = ray.remote(Trainer).options(num_cpus=cpus, num_gpus=gpus, resources=bundle, runtime_env=ENVIRONMENT)
    return actor.remote(base, resources.threads_per_worker, resources.device)


def cause(error: RayError) -> str:
    """Return what an error says, without the trace before it, in one line of at most 400 characters."""
    text = " ".join(str(getattr(error, "cause", None) or error).split())
    return text.rpartition(f"{InputError.__name__}: ")[2][-400:]


def leaving_nodes() -> set[str]:
    """Return the ids of nodes that Ray has announced as going away (a spot instance's notice, a scale-down)."""
    return set(cluster_state.get_draining_nodes())
