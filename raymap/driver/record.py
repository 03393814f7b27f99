"""Writes a run folder's run.json and study.yaml, and refuses to continue the run of another study."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import yaml

from raymap.driver.prepare import Prepared
from raymap.errors import InputError
from raymap.plan.blocks import Plan
from raymap.scoring.names import judge_versions
from raymap.store.files import as_json, read_if_there, write_atomically
from raymap.store.folder import RunFolder
from raymap.study.model import Study

DECISIVE = (
    "clip", "lpips", "sampler", "prompts", "seeds", "batch_size", "dtype", "speed", "memory", "protocol", "draw_anyway",
)  # fmt: skip
"""Keys of a study that have to stay the same in a run folder."""

DRAWING = ("torch", "diffusers", "transformers", "open-clip-torch", "lpips")
"""Packages that draw and score; another version may compute other last bits, and a pair would differ by them."""

VERSIONED = ("raymap", *DRAWING, "peft", "ray", "numpy")


def refuse_another(prepared: Prepared, folder: RunFolder) -> None:
    """Refuse a folder that holds another study's run, before anything is trained or written there.

    The plan's digest tells studies apart for certain, but only once the adapters are trained; names and settings do so
    before.

    Raises:
        InputError: adapters or settings are not those of the run.
    """
    record, settings = (read_if_there(folder.root / name) for name in ("run.json", "study.yaml"))
    if record is None or settings is None:
        return
    before = json.loads(record)
    names = {order.name for order in prepared.orders} | {found.info.name for found in prepared.brought}
    recorded = set(before.get("adapters", names))
    asked = prepared.study.model_dump(mode="json")
    held = yaml.safe_load(settings.decode())
    there = asked | held
    # A study leaves `memory` out where everything is as usual.
    there["memory"], asked["memory"] = held.get("memory"), asked.get("memory")
    other = next((key for key in DECISIVE if there[key] != asked[key]), "adapters" if recorded != names else None)
    if other:
        problem = f"holds a run of another study, in which `{other}` is different"
        raise InputError(str(folder.root), problem, "give another --output or delete it")
    _refuse_other_judges(before.get("judges", {}), judge_versions(prepared.study.judges), folder)


def _refuse_other_judges(held: dict[str, str], asked: dict[str, str], folder: RunFolder) -> None:
    """Refuse to continue with other judges, or other versions of them, than those that judged the images so far."""
    if held == asked:
        return
    there, here = (
        ", ".join(f"{name} (version {version})" for name, version in judges.items()) or "none"
        for judges in (held, asked)
    )
    problem = f"holds a run with other `judges`: {there} there, {here} in the study"
    remedy = (
        "give another --output, because images are judged while they are drawn; or, to continue this run, write "
        f"`judges: [{', '.join(held)}]`, in the versions that are named"
    )
    raise InputError(str(folder.root), problem, remedy)


def refuse_other_versions(folder: RunFolder) -> None:
    """Refuse to continue with other package versions than a run began with: the two images of a pair would differ.

    Raises:
        InputError: run.json names another version of a package that draws or scores.
    """
    record = read_if_there(folder.root / "run.json")
    if record is None or not folder.ledger():
        return
    here = versions()
    drew = here | json.loads(record).get("versions", {})
    if other := [f"{name} {drew[name]}, here is {here[name]}" for name in DRAWING if drew[name] != here[name]]:
        remedy = "install that version to continue, or give another --output"
        raise InputError(str(folder.root), f"was drawn with {'; '.join(other)}", remedy)


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that a run records."""
    return {name: version(name) for name in VERSIONED}


def decided(study: Study, plan: Plan) -> dict[str, Any]:
    """Return what run.json says from the start: everything that decides a run's bits."""
    digests = {adapter.name: adapter.sha256 for adapter in plan.adapters}
    judges = {"judges": judge_versions(study.judges)} if study.judges else {}
    return {"study": study.name, "digest": plan.digest, "versions": versions(), "adapters": digests, **judges}


def write_record(
    folder: RunFolder, study: Study, plan: Plan, session: dict[str, Any] | None, variants: list[str] | None = None
) -> None:
    """Write run.json: what decided the run, what each of its drawing sessions did, and the variants asked for."""
    path = folder.root / "run.json"
    before = json.loads(read_if_there(path) or b"{}")
    record = before | (decided(study, plan) if session or not before else {})
    record["images"] = plan.images(set(folder.done(plan)))
    record["sessions"] = [*before.get("sessions", ()), *([session] if session else ())]
    if variants is not None:
        record["variants"] = variants
    write_atomically(path, as_json(record))


def write_study(study: Study, folder: RunFolder) -> None:
    """Write study.yaml: the study with every key, defaults included."""
    resolved = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(folder.root / "study.yaml", resolved.encode())
