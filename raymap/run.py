"""Runs a prepared study: train what is missing, draw and score what is missing, reduce, report."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from raymap.actors.specs import GeneratorSpec, ScorerSpec
from raymap.adapters.folder import CARD, read_card, write_card
from raymap.diffusion import base as bases
from raymap.errors import IncompleteRunError, InputError
from raymap.intervene import measured_variants
from raymap.interventions import MARK
from raymap.personalize.orders import AdapterOrder, info_of, is_trained, together
from raymap.plan import BASE, Plan, Unit, make_plan
from raymap.prepare import Found, Prepared
from raymap.progress import Progress
from raymap.schedule import Schedule
from raymap.scoring.names import judge_digests
from raymap.store.files import is_local, read_file, read_if_there, write_atomically
from raymap.store.folder import RunFolder, as_json
from raymap.store.lock import locked
from raymap.study import Study

DECISIVE = ("clip", "lpips", "sampler", "prompts", "seeds", "batch_size", "dtype", "speed", "protocol", "draw_anyway")
"""Keys of a study of which a run folder holds one value."""
DRAWING = ("torch", "diffusers", "transformers", "open-clip-torch", "lpips")
"""Packages that draw and score: another version of one may compute other last bits, and pairs would show it."""
VERSIONED = ("raymap", *DRAWING, "peft", "ray", "numpy")


def train(prepared: Prepared, output: Path, progress: Progress) -> tuple[Path, ...]:
    """Train what is missing in the run folder, and return the folders of the study's adapters.

    Raises:
        InputError: an adapter there was trained with other settings, or the folder holds another study, or is in use.
        IncompleteRunError: a training failed; the others are kept.
    """
    folder = folder_at(output)
    with locked(folder.root):
        refuse_another(prepared, folder)
        untrained = untrained_orders(prepared, folder)
        _write_study(prepared.study, folder)
        if untrained:
            from raymap.cluster import launch

            with launch.runtime(prepared.study.resources):
                _train(prepared, untrained, folder, progress)
    return tuple(folder.adapter(order.name) for order in prepared.orders)


def run(prepared: Prepared, output: Path, progress: Progress) -> dict[str, Any]:
    """Do what is missing in the run folder, and return the statistics. Running it again resumes.

    Raises:
        InputError: the folder holds another study, or is in use.
        IncompleteRunError: some batches failed; what was drawn is kept, mapped and reported.
    """
    folder = folder_at(output)
    with locked(folder.root):
        return _run(prepared, folder, progress)


def folder_at(output: Path) -> RunFolder:
    """Return the run folder; a relative path means another place on each node, and a job's own goes with the job."""
    if os.environ.get("RAY_ADDRESS") and is_local(output) and not output.is_absolute():
        problem = "is a relative path, and the run joins a cluster"
        raise InputError(f"--output {output}", problem, "give a URL, or an absolute path that every node sees")
    return RunFolder(output)


def _run(prepared: Prepared, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    started = time.perf_counter()
    study = prepared.study
    refuse_another(prepared, folder)
    untrained = untrained_orders(prepared, folder)
    for found in prepared.brought:
        bring(found, folder.adapter(found.info.name), prepared.base_sha256)
    session: dict[str, Any] = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
    schedule: Schedule | None = None
    plan = None if untrained else plan_run(prepared, folder)
    if plan is None or folder.done(plan).keys() != set(plan.units):
        _refuse_other_versions(folder)
        from raymap.cluster import launch  # Ray starts late: bad input must not wait for it

        with launch.runtime(study.resources):
            if untrained:
                session["training_s"] = _train(prepared, untrained, folder, progress)
            plan = plan_run(prepared, folder)
            _write_study(study, folder)
            if not folder.ledger():
                write_atomically(folder.root / "run.json", as_json(_decided(study, plan)))
            schedule, drawing = _draw(prepared, plan, folder, progress)
            session |= drawing
    assert plan is not None
    if {unit.adapter == BASE for unit in folder.done(plan)} != {True, False}:
        raise IncompleteRunError(f"nothing could be scored; {folder.root / 'failures.jsonl'} says why")
    progress.note("reducing: map, statistics, report")
    from raymap.analysis.reduce import merge_noise, reduce_run  # late, as Ray: scipy and matplotlib take a second
    from raymap.report.page import render

    folder.join_journals()
    merge_noise(folder.noise_parts, folder.root / "noise.arrow")
    statistics = reduce_run(folder.root)
    session["seconds"] = round(time.perf_counter() - started, 1)
    _record(folder, study, plan, session if schedule else None)
    render(folder.root)
    _check_whole(schedule, plan, folder)
    if study.interventions:
        _intervene(prepared, plan, folder, progress)
    return statistics


def _intervene(prepared: Prepared, mapped: Plan, folder: RunFolder, progress: Progress) -> None:
    """Draw what the study's interventions lack, against the base pictures of its finished map, and reduce them."""
    study, schedule, session = prepared.study, None, None
    _write_study(study, folder)
    plan = mapped.under(measured_variants(study, prepared.touched, prepared.base, folder))
    if not set(plan.units) <= folder.done(plan).keys():
        _refuse_other_versions(folder)
        from raymap.cluster import launch

        with launch.runtime(study.resources):
            schedule, session = _draw(prepared, plan, folder, progress)
        session = {"interventions": len(plan.adapters), **session}
        folder.join_journals()
    if not any(unit.is_intervention for unit in folder.done(plan)):
        raise IncompleteRunError(f"no intervention could be scored; {folder.root / 'failures.jsonl'} says why")
    _record(folder, study, mapped, session, variants=[adapter.name for adapter in plan.adapters])
    progress.note("reducing: interventions")
    from raymap.analysis.interventions import reduce_interventions
    from raymap.report.page import render

    reduce_interventions(folder.root)
    render(folder.root)
    _check_whole(schedule, plan, folder)


def _check_whole(schedule: Schedule | None, plan: Plan, folder: RunFolder) -> None:
    if schedule is not None and schedule.failed:
        problem = f"{len(schedule.failed)} of {len(plan.units)} batches failed ({folder.root / 'failures.jsonl'})"
        raise IncompleteRunError(f"{problem}; the same command tries them again")


def untrained_orders(prepared: Prepared, folder: RunFolder) -> tuple[AdapterOrder, ...]:
    return tuple(order for order in prepared.orders if not is_trained(folder.adapter(order.name), order))


def bring(found: Found, target: Path, base_sha256: str) -> None:
    """Copy an adapter into the run folder, the card last."""
    if (target / CARD).exists():
        held, card = read_card(target, base_sha256)
        called = ("token", "phrase")
        if held != found.info or [card.get(key) for key in called] != [found.card.get(key) for key in called]:
            problem = f"is not the adapter {found.files[0]} as the study names it"
            raise InputError(str(target), problem, "give another --output")
    else:
        for path in found.files:
            write_atomically(target / path.name, read_file(path))
        write_card(target, found.card)


def refuse_another(prepared: Prepared, folder: RunFolder) -> None:
    """Refuse a folder that holds another study's run, before anything is trained or written there.

    What the plan's digest refuses later, when the adapters are there, is here told from names and settings.

    Raises:
        InputError: adapters or settings are not those of the run.
    """
    record, settings = (read_if_there(folder.root / name) for name in ("run.json", "study.yaml"))
    if record is None or settings is None:
        return
    names = {order.name for order in prepared.orders} | {found.info.name for found in prepared.brought}
    known = set(json.loads(record).get("adapters", names))
    asked = prepared.study.model_dump(mode="json")
    held = asked | yaml.safe_load(settings.decode())
    if differs := next((key for key in DECISIVE if held[key] != asked[key]), "adapters" if known != names else None):
        problem = f"holds a run of another study, with other `{differs}`"
        raise InputError(str(folder.root), problem, "give another --output or delete it")


def _refuse_other_versions(folder: RunFolder) -> None:
    """Refuse to draw on by other versions than those that drew what is there: the two pictures of a pair would differ.

    Raises:
        InputError: run.json names another version of a package that draws or scores.
    """
    record = read_if_there(folder.root / "run.json")
    if record is None or not folder.ledger():
        return
    here = _versions()
    held = here | json.loads(record).get("versions", {})
    if other := [f"{name} {held[name]}, here is {here[name]}" for name in DRAWING if held[name] != here[name]]:
        remedy = "install that version to go on, or give another --output"
        raise InputError(str(folder.root), f"was drawn with {'; '.join(other)}", remedy)


def plan_run(prepared: Prepared, folder: RunFolder) -> Plan:
    """Plan the run and refuse a folder that holds another one."""
    infos = [info_of(o, folder.adapter(o.name)) for o in prepared.orders]
    infos += [found.info for found in prepared.brought]
    plan = make_plan(
        prepared.study,
        tuple(infos),
        {"base": prepared.base_sha256, **judge_digests(prepared.study.clip, prepared.study.lpips)},
    )
    record = read_if_there(folder.root / "run.json")
    if record is not None and json.loads(record).get("digest") != plan.digest:
        raise InputError(str(folder.root), "holds a run of another study", "give another --output or delete it")
    return plan


def _train(prepared: Prepared, untrained: tuple[AdapterOrder, ...], folder: RunFolder, progress: Progress) -> float:
    """Train every group of orders in which one is missing, whole: when a run was broken off changes no bit."""
    from raymap.cluster import launch, training

    start = time.perf_counter()
    resources = prepared.study.resources
    groups = tuple(g for g in together(prepared.orders, resources.train_together) if set(g) & set(untrained))
    steps = sum(order.steps for group in groups for order in group)
    progress.phase(f"training {len(untrained)} adapters", steps, "steps")
    base = bases.pinned(prepared.study.base)
    training.train_all(groups, folder, lambda: launch.start_trainer(base, resources), resources.workers.max, progress)
    return round(time.perf_counter() - start, 1)


def _write_study(study: Study, folder: RunFolder) -> None:
    resolved = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(folder.root / "study.yaml", resolved.encode())


def _draw(prepared: Prepared, plan: Plan, folder: RunFolder, progress: Progress) -> tuple[Schedule, dict[str, Any]]:
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


def _versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONED}


def _decided(study: Study, plan: Plan) -> dict[str, Any]:
    """Return what run.json says from a run's first moment: what decides its bits."""
    digests = {adapter.name: adapter.sha256 for adapter in plan.adapters}
    return {"study": study.name, "digest": plan.digest, "versions": _versions(), "adapters": digests}


def _record(
    folder: RunFolder, study: Study, plan: Plan, session: dict[str, Any] | None, variants: list[str] | None = None
) -> None:
    """Write run.json: what decided the run, what each session of it that drew did, and variants that were asked for."""
    path = folder.root / "run.json"
    before = json.loads(read_if_there(path) or b"{}")
    record = before | (_decided(study, plan) if session or not before else {})
    record["images"] = plan.images(set(folder.done(plan)))
    record["sessions"] = [*before.get("sessions", ()), *([session] if session else ())]
    if variants is not None:
        record["variants"] = variants
    write_atomically(path, as_json(record))
