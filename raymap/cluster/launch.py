"""Starts Ray and the actors: the only place that turns plain classes into remote ones."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import ray
from ray._private.state import state as cluster_state
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from raymap.actors.reducer import Reducer
from raymap.actors.roles import AdaptedBatch, BaseBatch, Draws, Scores, WorkerInfo
from raymap.actors.shells import Generator, Scorer, Trainer
from raymap.actors.specs import GeneratorSpec, ScorerSpec
from raymap.cluster.failures import Decision, Work, decide
from raymap.errors import IncompleteRunError, InputError
from raymap.store.folder import RunFolder
from raymap.study.model import Resources

WORKER_STARTS = 8
"""How many starts of workers, or of trainers, may be lost in a row before a run ends as incomplete."""
SCORER_SHARE = 0.25
"""The share of a worker's GPU that Ray reserves for its scorer (both see the whole of it)."""
ENVIRONMENT = {"env_vars": {"THP_MEM_ALLOC_ENABLE": "1"}}
"""Torch asks for huge pages on a CPU: with fewer misses in address translation it draws some 5 % faster."""
UNRECORDED = {"enable_task_events": False}
"""Ray keeps no record of every call, which would take megabytes in the driver: the ledger has a line per batch."""

Drawing = TypeVar("Drawing")
Scoring = TypeVar("Scoring")


@contextlib.contextmanager
def runtime(resources: Resources) -> Iterator[None]:
    """Hold a Ray runtime: the cluster that RAY_ADDRESS names (as in a submitted job), otherwise a local one.

    Raises:
        InputError: this machine lacks what a worker needs.
        IncompleteRunError: the process got SIGTERM, which `ray job stop` and most schedulers send.
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
        raise IncompleteRunError("stopped; the same command resumes") from None
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _missing(resources: Resources) -> str | None:
    """Return the first resource of a worker that no machine without an autoscaler will ever have."""
    there = ray.cluster_resources()
    return next((name for name, amount in resources.bundle.items() if there.get(name, 0) < amount), None)


def check_shared_memory(batch_bytes: int, batches: int, resources: Resources) -> None:
    """Check that each node's object store has room for what its workers have in flight, `batches` batches each.

    Raises:
        InputError: it has not; the message says what to change.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    share = math.ceil(resources.workers.max / len(nodes))
    for node in nodes:
        fitting = [int(node.get(name, 0) / amount) for name, amount in resources.bundle.items()]
        workers, store = min(share, *fitting), node.get("object_store_memory", 0)
        if workers * batches * batch_bytes > store:
            problem = (
                f"{workers} workers have {workers * batches} batches of {batch_bytes / 2**20:.0f} MiB in flight, but "
                f"the object store of a node holds {store / 2**20:.0f} MiB"
            )
            remedy = "lower `batch_size` or `workers`, or give more shared memory (docker run --shm-size)"
            raise InputError("resources", problem, remedy)


@dataclass
class Worker:
    """A generator and a scorer in one placement group, and so on one node; `info` is None until both are ready."""

    generator: Any
    scorer: Any
    place: PlacementGroup
    ready: Any
    info: WorkerInfo | None = None
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
    """Ask Ray for a worker that draws images; `ready` is a reference that resolves once both actors have loaded."""
    return start_pair(Generator, generator, Scorer, scorer, resources)


def start_pair(
    draws: Callable[[Drawing], Draws[BaseBatch, AdaptedBatch]],
    drawing: Drawing,
    scores: Callable[[Scoring], Scores[BaseBatch, AdaptedBatch]],
    scoring: Scoring,
    resources: Resources,
) -> Worker:
    """Ask Ray for two actors on one node that share a GPU, one of each role.

    Args:
        draws: the class of the first, which is built from `drawing`.
        scores: the class of the second, which is built from `scoring`.
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
    """Waits for actors' first answers and counts how many were lost in a row; `what` names the actors."""

    what: str
    failed: int = 0

    def answer(self, ref: Any) -> Any:
        """Return an actor's first answer; None where the actor was lost before it could give one.

        Raises:
            IncompleteRunError: it reports why it cannot start, or too many were lost in a row.
        """
        try:
            answer = ray.get(ref)
        except RayError as error:
            if decide(Work.START, raised_by(error)) is Decision.END_RUN:
                raise IncompleteRunError(f"a {self.what} cannot start: {cause(error)}") from error
            self.failed += 1
            if self.failed > WORKER_STARTS:
                raise IncompleteRunError(f"{self.what}s do not start: {cause(error)}") from error
            return None
        self.failed = 0
        return answer


def start_reducer(folder: RunFolder) -> Any:
    """Start the reducer on the driver's node; it may restart and repeat a commit, which changes nothing."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here, **UNRECORDED}
    return ray.remote(Reducer).options(**options).remote(folder)


def start_trainer(base: str | Path, resources: Resources, dtype: str = "float32", weights: str | None = None) -> Any:
    """Start a trainer with a worker's share of the machine; `dtype` and `weights` are the study's."""
    bundle = dict(resources.bundle)
    cpus, gpus = bundle.pop("CPU", 0), bundle.pop("GPU", 0)
    actor = ray.remote(Trainer).options(num_cpus=cpus, num_gpus=gpus, resources=bundle, runtime_env=ENVIRONMENT)
    return actor.remote(base, resources.threads_per_worker, resources.device, dtype, weights)


def raised_by(error: RayError) -> Exception | None:
    """Return the error that a call itself raised; None where its process or node was lost."""
    raised = error.cause if isinstance(error, RayTaskError) else None
    return None if isinstance(raised, RayError) else raised


def cause(error: RayError) -> str:
    """Return what an error says, without its traceback, in one line of at most 400 characters."""
    return " ".join(str(getattr(error, "cause", None) or error).split())[-400:]


def leaving_nodes() -> set[str]:
    """Return the ids of nodes that are about to go away, as Ray announces for spot instances and when scaling down."""
    return set(cluster_state.get_draining_nodes())
