"""Starts Ray and the actors: the only place that turns plain classes into remote ones."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raymap.actors.generator import Generator, GeneratorSpec
from raymap.actors.reducer import Reducer
from raymap.actors.scorer import Scorer, ScorerSpec
from raymap.actors.trainer import Trainer
from raymap.store.folder import RunFolder
from raymap.study import Resources


@contextlib.contextmanager
def runtime(resources: Resources) -> Iterator[None]:
    """Hold a Ray runtime: the cluster that RAY_ADDRESS names (as in a submitted job), else a local one."""
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"num_cpus": max(os.cpu_count() or 1, resources.workers), "include_dashboard": False}
    ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class Worker:
    """A generator and the scorer beside it, in one placement group, so on one node."""

    generator: Any
    scorer: Any
    place: PlacementGroup
    ready: Any
    info: dict[str, Any] | None = None

    def stop(self) -> None:
        """End both actors and give their place back."""
        for actor in (self.generator, self.scorer):
            ray.kill(actor)
        remove_placement_group(self.place)


def start_worker(generator: GeneratorSpec, scorer: ScorerSpec, resources: Resources) -> Worker:
    """Ask Ray for a worker; `ready` is a reference that resolves once its generator has loaded."""
    place = placement_group([_bundle(resources)], strategy="STRICT_PACK")
    here = PlacementGroupSchedulingStrategy(placement_group=place)
    draws = ray.remote(Generator).options(
        num_cpus=resources.threads_per_worker, num_gpus=resources.gpus_per_worker, scheduling_strategy=here
    )
    scores = ray.remote(Scorer).options(num_cpus=0, scheduling_strategy=here)
    actor = draws.remote(generator)
    return Worker(actor, scores.remote(scorer), place, actor.ready.remote())


def _bundle(resources: Resources) -> dict[str, float]:
    bundle: dict[str, float] = {"CPU": resources.threads_per_worker}
    if resources.gpus_per_worker:
        bundle["GPU"] = resources.gpus_per_worker
    return bundle


def start_reducer(folder: RunFolder) -> Any:
    """Start the reducer; it may restart and repeat a commit, which changes nothing."""
    return ray.remote(Reducer).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote(folder)


def start_trainer(base: Path, resources: Resources) -> Any:
    """Start a trainer with a worker's share of the machine."""
    actor = ray.remote(Trainer).options(num_cpus=resources.threads_per_worker, num_gpus=resources.gpus_per_worker)
    return actor.remote(base, resources.threads_per_worker, resources.device)
