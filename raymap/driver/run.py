"""Runs a prepared study: trains, draws and scores what is missing, then reduces and reports."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from raymap.adapters.brought import bring
from raymap.analysis.statistics import Statistics
from raymap.display.progress import Progress
from raymap.driver.adapters import train_missing, untrained_orders
from raymap.driver.draw import Session, draw_missing, folder_at, plan_run
from raymap.driver.interventions import measured_variants
from raymap.driver.prepare import Prepared
from raymap.driver.record import decided, refuse_another, refuse_other_versions, write_record, write_study
from raymap.errors import IncompleteRunError
from raymap.personalize.orders import AdapterOrder
from raymap.plan.blocks import Plan
from raymap.store.files import as_json, write_atomically
from raymap.store.folder import RunFolder
from raymap.store.lock import locked


def train(prepared: Prepared, output: Path, progress: Progress) -> tuple[Path, ...]:
    """Train what is missing in the run folder, and return the folders of the study's adapters.

    Raises:
        InputError: the folder holds another study or an adapter that was trained with other settings, or is in use.
        IncompleteRunError: a training failed; the others are kept.
    """
    folder = folder_at(output)
    with locked(folder.root):
        refuse_another(prepared, folder)
        untrained = untrained_orders(prepared, folder)
        write_study(prepared.study, folder)
        if untrained:
            from raymap.cluster import launch

            with launch.runtime(prepared.study.resources):
                train_missing(prepared, untrained, folder, progress)
    return tuple(folder.adapter(order.name) for order in prepared.orders)


def run(prepared: Prepared, output: Path, progress: Progress) -> Statistics:
    """Do what is missing in the run folder, and return the statistics. A second call resumes.

    Raises:
        InputError: the folder holds another study, or is in use.
        IncompleteRunError: some batches failed; what was drawn is kept, mapped and reported.
    """
    folder = folder_at(output)
    with locked(folder.root):
        return _run(prepared, folder, progress)


def _run(prepared: Prepared, folder: RunFolder, progress: Progress) -> Statistics:
    started, began = time.perf_counter(), datetime.now(UTC)
    study = prepared.study
    refuse_another(prepared, folder)
    untrained = untrained_orders(prepared, folder)
    for found in prepared.brought:
        bring(found, folder.adapter(found.info.name), prepared.base.sha256)
    plan, session = _drawn(prepared, untrained, folder, progress)
    if {unit.is_base for unit in folder.done(plan)} != {True, False}:
        raise IncompleteRunError(f"nothing could be scored; {folder.root / 'failures.jsonl'} says why")
    progress.note("reducing: map, statistics, report")
    from raymap.analysis.reduce import merge_noise, reduce_run  # late, like Ray: scipy and matplotlib take a second
    from raymap.report.page import render

    folder.join_journals()
    merge_noise(folder.noise_parts, folder.root / "noise.arrow")
    statistics = reduce_run(folder.root)
    record = None
    if session:
        seconds = round(time.perf_counter() - started, 1)
        record = {"started": began.isoformat(timespec="seconds"), **session.record, "seconds": seconds}
    write_record(folder, study, plan, record)
    render(folder.root)
    folder.check_complete(plan, session.failed if session else ())
    if study.interventions:
        _intervene(prepared, plan, folder, progress)
    return statistics


def _drawn(
    prepared: Prepared, untrained: tuple[AdapterOrder, ...], folder: RunFolder, progress: Progress
) -> tuple[Plan, Session | None]:
    """Train and draw what the run folder lacks; return the plan, and the session if anything was to do."""
    plan = None if untrained else plan_run(prepared, folder)
    if plan and folder.done(plan).keys() == set(plan.units):
        return plan, None
    refuse_other_versions(folder)
    from raymap.cluster import launch  # Ray is imported late: bad input must be refused without waiting for it

    study = prepared.study
    with launch.runtime(study.resources):
        training = {"training_s": train_missing(prepared, untrained, folder, progress)} if untrained else {}
        plan = plan or plan_run(prepared, folder)
        write_study(study, folder)
        if not folder.ledger():
            write_atomically(folder.root / "run.json", as_json(decided(study, plan)))
        session = draw_missing(prepared, plan, folder, progress)
    return plan, replace(session, record=training | session.record)


def _intervene(prepared: Prepared, mapped: Plan, folder: RunFolder, progress: Progress) -> None:
    """Draw the missing images of the study's interventions, to compare with its map's base images, and reduce them."""
    study, session = prepared.study, None
    write_study(study, folder)
    plan = mapped.under(measured_variants(prepared, folder))
    if not set(plan.units) <= folder.done(plan).keys():
        refuse_other_versions(folder)
        from raymap.cluster import launch

        with launch.runtime(study.resources):
            session = draw_missing(prepared, plan, folder, progress)
        folder.join_journals()
    if not any(unit.is_intervention for unit in folder.done(plan)):
        raise IncompleteRunError(f"no intervention could be scored; {folder.root / 'failures.jsonl'} says why")
    record = {"interventions": len(plan.adapters), **session.record} if session else None
    write_record(folder, study, mapped, record, variants=[adapter.name for adapter in plan.adapters])
    progress.note("reducing: interventions")
    from raymap.analysis.why.interventions import reduce_interventions
    from raymap.report.page import render

    reduce_interventions(folder.root)
    render(folder.root)
    folder.check_complete(plan, session.failed if session else ())
