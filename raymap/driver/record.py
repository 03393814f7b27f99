"""What a run folder says of its run: run.json and study.yaml are written, and another study's run is refused."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import yaml

from raymap.driver.prepare import Prepared
from raymap.errors import InputError
from raymap.plan.blocks import Plan
from raymap.scoring.names import judge_versions
from raymap.store.files import write_atomically
from raymap.store.folder import RunFolder, as_json
from raymap.study.model import Study

DECISIVE = ("clip", "lpips", "sampler", "prompts", "seeds", "batch_size", "dtype", "speed", "protocol", "draw_anyway")
"""Keys of a study of which a run folder holds one value."""

DRAWING = ("torch", "diffusers", "transformers", "open-clip-torch", "lpips")
"""Packages that draw and score: another version of one may compute other last bits, and pairs would show it."""

VERSIONED = ("raymap", *DRAWING, "peft", "ray", "numpy")


def refuse_another(prepared: Prepared, folder: RunFolder) -> None:
    """Refuse a folder that holds another study's run, before anything is trained or written there.

    What the plan's digest refuses later, when the adapters are there, is here told from names and settings.

    Raises:
        InputError: adapters or settings are not those of the run.
    """
    record, settings = folder.root / "run.json", folder.root / "study.yaml"
    if not record.exists() or not settings.exists():
        return
    before = json.loads(record.read_text(encoding="utf-8"))
    names = {order.name for order in prepared.orders} | {found.info.name for found in prepared.brought}
    known = set(before.get("adapters", names))
    asked = prepared.study.model_dump(mode="json")
    held = asked | yaml.safe_load(settings.read_text(encoding="utf-8"))
    if differs := next((key for key in DECISIVE if held[key] != asked[key]), "adapters" if known != names else None):
        problem = f"holds a run of another study, with other `{differs}`"
        raise InputError(str(folder.root), problem, "give another --output or delete it")
    _refuse_other_judges(before.get("judges", {}), judge_versions(prepared.study.judges), folder)


def _refuse_other_judges(held: dict[str, str], asked: dict[str, str], folder: RunFolder) -> None:
    """Refuse to go on with other judges, or other versions of them, than those of the images that are there."""
    if held == asked:
        return
    there, here = (
        ", ".join(f"{name} (version {version})" for name, version in judges.items()) or "none"
        for judges in (held, asked)
    )
    problem = f"holds a run with other `judges`: {there} there, {here} in the study"
    remedy = (
        "give another --output, because images are judged while they are drawn; or, to go on with this run, write "
        f"`judges: [{', '.join(held)}]`, in the versions that are named"
    )
    raise InputError(str(folder.root), problem, remedy)


def refuse_other_versions(folder: RunFolder) -> None:
    """Refuse to draw on by other versions than those that drew what is there: the two pictures of a pair would differ.

    Raises:
        InputError: run.json names another version of a package that draws or scores.
    """
    record = folder.root / "run.json"
    if not record.exists() or not folder.ledger():
        return
    here = versions()
    held = here | json.loads(record.read_text(encoding="utf-8")).get("versions", {})
    if other := [f"{name} {held[name]}, here is {here[name]}" for name in DRAWING if held[name] != here[name]]:
        remedy = "install that version to go on, or give another --output"
        raise InputError(str(folder.root), f"was drawn with {'; '.join(other)}", remedy)


def versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONED}


def decided(study: Study, plan: Plan) -> dict[str, Any]:
    """Return what run.json says from a run's first moment: what decides its bits."""
    digests = {adapter.name: adapter.sha256 for adapter in plan.adapters}
    judges = {"judges": judge_versions(study.judges)} if study.judges else {}
    return {"study": study.name, "digest": plan.digest, "versions": versions(), "adapters": digests, **judges}


def write_record(
    folder: RunFolder, study: Study, plan: Plan, session: dict[str, Any] | None, variants: list[str] | None = None
) -> None:
    """Write run.json: what decided the run, what each session of it that drew did, and variants that were asked for."""
    path = folder.root / "run.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record = before | (decided(study, plan) if session or not before else {})
    record["images"] = plan.images(set(folder.done(plan)))
    record["sessions"] = [*before.get("sessions", ()), *([session] if session else ())]
    if variants is not None:
        record["variants"] = variants
    write_atomically(path, as_json(record))


def write_study(study: Study, folder: RunFolder) -> None:
    resolved = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(folder.root / "study.yaml", resolved.encode())
