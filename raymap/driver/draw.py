"""A run's plan, and the drawing and scoring of what it still lacks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from raymap.actors.specs import GeneratorSpec, ScorerSpec
from raymap.base import folder as bases
from raymap.display.progress import Progress
from raymap.driver.prepare import Prepared
from raymap.errors import IncompleteRunError, InputError
from raymap.personalize.orders import info_of
from raymap.plan.blocks import BASE, Plan, Unit, make_plan
from raymap.plan.schedule import Schedule
from raymap.scoring.names import judge_digests, judge_versions
from raymap.store.files import is_local
from raymap.store.folder import RunFolder
from raymap.study.interventions import MARK


def folder_at(output: Path) -> RunFolder:
    """Return the run folder; a relative path means another place on each node, and a job's own goes with the job."""
    if os.environ.get("RAY_ADDRESS") and is_local(output) and not output.is_absolute():
        problem = "is a relative path, and the run joins a cluster"
        raise InputError(f"--output {output}", problem, "give a URL, or an absolute path that every node sees")
    return RunFolder(output)


def plan_run(prepared: Prepared, folder: RunFolder) -> Plan:
    """Plan the run and refuse a folder that holds another one."""
    infos = [info_of(o, folder.adapter(o.name)) for o in prepared.orders]
    infos += [found.info for found in prepared.brought]
    plan = make_plan(
        prepared.study,
        tuple(infos),
        {"base": prepared.base_sha256, **judge_digests(prepared.study.clip, prepared.study.lpips)},
        judge_versions(prepared.study.judges),
    )
    record = folder.root / "run.json"
    if record.exists():
        held = json.loads(record.read_text(encoding="utf-8")).get("digest")
        if held != plan.digest:
            raise InputError(str(folder.root), "holds a run of another study", "give another --output or delete it")
    return plan


def draw_missing(
    prepared: Prepared, plan: Plan, folder: RunFolder, progress: Progress
) -> tuple[Schedule, dict[str, Any]]:
    from raymap.cluster import launch, stream

    start = time.perf_counter()
    study = prepared.study
    done = folder.done(plan)
    missing: set[Unit] = set(plan.units) - done.keys()
    schedule = Schedule(plan, done)
    progress.phase("drawing", plan.images(missing), "images")
    if done:
        progress.note(f"{plan.images(set(done))} images are there already")
    launch.check_shared_memory(
        3 * bases.picture_side(prepared.base) ** 2 * plan.batch_size, stream.DEPTH + 1, study.resources
    )
    threads = study.resources.threads_per_worker
    folders = {name: folder.adapter(name) for name in dict.fromkeys(a.name.partition(MARK)[0] for a in plan.adapters)}
    generator = GeneratorSpec(
        bases.pinned(study.base),
        folders,
        study.sampler,
        plan.batch_size,
        study.dtype,
        triggered=study.protocol == "triggered",
        draw_anyway=study.draw_anyway,
        threads=threads,
        device=study.resources.device,
        speed=study.speed,
    )
    scorer = ScorerSpec(
        study.clip,
        study.lpips,
        folder.root,
        plan.digest,
        keep_all=study.images == "all",
        threads=threads,
        device=study.resources.device,
        judges=study.judges,
    )
    driver = stream.Stream(
        plan,
        schedule,
        folder,
        launch.start_reducer(folder),
        lambda: launch.start_worker(generator, scorer, study.resources),
        progress,
        devices={unit.block: device for unit, device in done.items() if unit.adapter == BASE},
    )
    driver.run(study.resources.workers)
    return schedule, {
        "drawn": plan.images(missing - schedule.failed),
        "drawing_s": round(time.perf_counter() - start, 1),
        "workers": driver.seen,
        **{name: round(value, 2) for name, value in driver.seconds.items()},
    }


def check_whole(schedule: Schedule | None, plan: Plan, folder: RunFolder) -> None:
    if schedule is not None and schedule.failed:
        problem = f"{len(schedule.failed)} of {len(plan.units)} batches failed ({folder.root / 'failures.jsonl'})"
        raise IncompleteRunError(f"{problem}; the same command tries them again")
