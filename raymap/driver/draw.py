"""A run's plan, and the drawing and scoring of what it still lacks."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raymap.actors.specs import GeneratorSpec, ScorerSpec
from raymap.display.progress import Progress
from raymap.driver.prepare import Prepared
from raymap.errors import InputError
from raymap.personalize.orders import info_of
from raymap.plan.blocks import Plan, Unit, make_plan
from raymap.plan.schedule import Schedule
from raymap.scoring.names import judge_digests, judge_versions
from raymap.store.files import is_local, read_if_there
from raymap.store.folder import RunFolder


@dataclass(frozen=True)
class Session:
    """One session of drawing: what run.json records of it, and the units that failed."""

    record: dict[str, Any]
    failed: frozenset[Unit]


def folder_at(output: Path) -> RunFolder:
    """Return the run folder.

    Raises:
        InputError: a relative path on a cluster, where it means another folder on every node.
    """
    if os.environ.get("RAY_ADDRESS") and is_local(output) and not output.is_absolute():
        problem = "is a relative path, and the run joins a cluster"
        raise InputError(f"--output {output}", problem, "give a URL, or an absolute path that every node sees")
    return RunFolder(output)


def plan_run(prepared: Prepared, folder: RunFolder) -> Plan:
    """Plan the run; its adapters are in the run folder.

    Raises:
        InputError: the folder holds another study's run.
    """
    study = prepared.study
    adapters = [info_of(order, folder.adapter(order.name)) for order in prepared.orders]
    adapters += [found.info for found in prepared.brought]
    digests = {"base": prepared.base.sha256, **judge_digests(study.clip, study.lpips)}
    plan = make_plan(study, tuple(adapters), digests, judge_versions(study.judges))
    record = read_if_there(folder.root / "run.json")
    if record is not None and json.loads(record).get("digest") != plan.digest:
        raise InputError(str(folder.root), "holds a run of another study", "give another --output or delete it")
    return plan


def draw_missing(prepared: Prepared, plan: Plan, folder: RunFolder, progress: Progress) -> Session:
    """Draw, score and commit what the run folder lacks of a plan, in a Ray runtime that is up.

    Raises:
        InputError: a node's shared memory is too small for what its workers have in flight.
        IncompleteRunError: as `Stream.run`.
    """
    from raymap.cluster import launch, stream

    start = time.perf_counter()
    study = prepared.study
    done = folder.done(plan)
    missing: set[Unit] = set(plan.units) - done.keys()
    schedule = Schedule(plan, done)
    progress.phase("drawing", plan.images(missing), "images")
    if done:
        progress.note(f"{plan.images(set(done))} images are there already")
    batch_bytes = 3 * prepared.base.side**2 * plan.batch_size
    launch.check_shared_memory(batch_bytes, stream.DEPTH + 1, study.resources)
    generator = GeneratorSpec.of(study, prepared.base.pinned, plan, folder)
    scorer = ScorerSpec.of(study, plan, folder)
    driver = stream.Stream(
        plan,
        schedule,
        folder,
        launch.start_reducer(folder),
        lambda: launch.start_worker(generator, scorer, study.resources),
        progress,
        devices={unit.block: device for unit, device in done.items() if unit.is_base},
    )
    driver.run(study.resources.workers)
    record = {
        "drawn": plan.images(missing - schedule.failed),
        "drawing_s": round(time.perf_counter() - start, 1),
        "workers": [asdict(worker) for worker in driver.seen],
        **{name: round(value, 2) for name, value in driver.seconds.items()},
    }
    return Session(record, frozenset(schedule.failed))
