"""Measures a finished run's attention: the same prompts, seeds, adapters and batches, with the same scheduler."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from raymap.actors.specs import AttentionSpec, GeneratorSpec, TablesSpec
from raymap.analysis.why.statistics import AttentionSummary
from raymap.display.progress import Progress
from raymap.driver.adapters import untrained_orders
from raymap.driver.draw import folder_at, plan_run
from raymap.driver.prepare import Prepared
from raymap.errors import IncompleteRunError, InputError
from raymap.plan.blocks import Plan
from raymap.plan.schedule import Schedule
from raymap.store.files import as_json, read_if_there, write_atomically
from raymap.store.folder import RunFolder
from raymap.store.lock import locked
from raymap.study.model import Study


def check_attention(prepared: Prepared) -> None:
    """Check that a study's attention can be measured.

    Raises:
        InputError: the base's text has no keys of its own, base and adapters draw different prompts, the denoiser is
            compiled, or a layer has fewer heads than head groups.
    """
    study, family, heads = prepared.study, prepared.base.family, prepared.base.heads
    if not family.text_keys:
        problem = f"{family.title} keeps text and image in one stream, whose keys are not told apart"
        if not family.known:
            problem = f"raymap does not know where a {family.class_name} attends to a prompt's tokens"
        raise InputError(
            f"base: {study.base}", problem, "measure attention on a base of another family (docs/attention.md)"
        )
    if study.protocol == "triggered":
        problem = "puts tokens into the adapted prompt, so that the maps do not match"
        raise InputError("protocol: triggered", problem, "write `protocol: plain`")
    if study.speed.compile != "none":
        problem = "compiles the denoiser, whose attention can then not be watched"
        raise InputError(f"speed.compile: {study.speed.compile}", problem, "measure a run with `compile: none`")
    if study.attention.head_groups > heads:
        where = f"attention.head_groups: {study.attention.head_groups}"
        raise InputError(where, f"a layer of the base has {heads} heads", f"give 1 to {heads}")


def describe_attention(prepared: Prepared) -> str:
    """Return what measuring would do, in one line."""
    study = prepared.study
    pairs = len(study.prompts) * len(study.seeds) * prepared.adapters
    passes = (1 + len(study.attention.protocols)) * study.sampler.steps
    return (
        f"{study.name}: attention of {len(study.prompts)} prompts x {len(study.seeds)} seeds x {prepared.adapters} "
        f"adapters = {pairs} pairs ({', '.join(study.attention.protocols)}), {passes} denoiser passes each"
    )


def attend(prepared: Prepared, output: Path, progress: Progress) -> AttentionSummary:
    """Measure what is missing beside a finished run and return what attention.json says. Running it again resumes.

    Raises:
        InputError: the folder holds no finished run of this study, or attention with other settings, or is in use.
        IncompleteRunError: some batches failed; the others are kept and reduced.
    """
    folder = folder_at(output)
    with locked(folder.root):
        return _attend(prepared, folder, progress)


def _attend(prepared: Prepared, folder: RunFolder, progress: Progress) -> AttentionSummary:
    study = prepared.study
    if not (folder.root / "map.arrow").exists() or untrained_orders(prepared, folder):
        problem = "holds no finished map to compare attention with"
        raise InputError(str(folder.root), problem, "give the study to `raymap run` first")
    mapped = plan_run(prepared, folder)
    plan = replace(mapped, digest=_digest(mapped, study))
    own = RunFolder(folder.root / "attention")  # a run folder in itself, with ledger, failures and scores
    _check_digest(own, plan)
    done = own.done(plan)
    missing = set(plan.units) - done.keys()
    schedule = Schedule(plan, done)
    if not all(unit.is_base for unit in missing):
        progress.phase("attention", plan.images(missing), "images")
        _measure(prepared, plan, schedule, own, folder, progress)
    own.join_journals()
    if all(unit.is_base for unit in own.done(plan)):
        raise IncompleteRunError(f"nothing could be measured; {own.root / 'failures.jsonl'} says why")
    progress.note("reducing: attention")
    from raymap.analysis.why.attention import reduce_attention  # late, because scipy takes a second

    summary = reduce_attention(folder.root)
    own.check_complete(plan, schedule.failed)
    return summary


def _measure(
    prepared: Prepared, plan: Plan, schedule: Schedule, own: RunFolder, folder: RunFolder, progress: Progress
) -> None:
    from raymap.actors import shells
    from raymap.cluster import launch, stream

    study = prepared.study
    resources = study.resources
    drawing = GeneratorSpec.of(study, prepared.base.pinned, plan, folder)
    meter = AttentionSpec(drawing, study.attention, prepared.size)
    tables = TablesSpec(plan.digest, study.attention.protocols)
    with launch.runtime(resources):
        stream.Stream(
            plan,
            schedule,
            own,
            launch.start_reducer(own),
            lambda: launch.start_pair(shells.AttentionMeter, meter, shells.AttentionTables, tables, resources),
            progress,
        ).run(resources.workers)


def _digest(plan: Plan, study: Study) -> str:
    decides = {"run": plan.digest, "attention": study.attention.model_dump()}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _check_digest(own: RunFolder, plan: Plan) -> None:
    record = read_if_there(own.root / "run.json")
    if record is None:
        write_atomically(own.root / "run.json", as_json({"digest": plan.digest}))
    elif json.loads(record)["digest"] != plan.digest:
        raise InputError(str(own.root), "holds attention that was measured with other settings", "delete it")
