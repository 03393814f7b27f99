"""An audit: a base and adapter files go in, a study with sensible defaults comes out; what it found goes to CI."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import polars as pl

from raymap.analysis.gate import Limits, Verdict, judge, shifted
from raymap.analysis.reduce import read_map
from raymap.analysis.scores import read_noise
from raymap.display import plain
from raymap.errors import InputError
from raymap.store.files import read_file
from raymap.store.folder import as_json
from raymap.study import Brought, Study, SubjectCategory, build_study, override

SEEDS = 4
EMBEDDED = {"suite": "embedded-quick", "clip": "embedded", "lpips": "embedded", "sampler": {}}
OTHERS = {
    "suite": "quick",
    "clip": "ViT-L-14/openai",
    "lpips": "alex",
    "sampler": {"steps": 50, "guidance_scale": 7.5},  # StableDiffusionPipeline's own defaults
}
NAME = re.compile(r"([a-z0-9][a-z0-9_-]*)=(.+)")


def audit_study(
    base: str,
    adapters: Sequence[str],
    categories: Sequence[str] = (),
    suite: str | None = None,
    seeds: int = SEEDS,
    overrides: Sequence[str] = (),
    limit: int | None = None,
) -> Study:
    """Return the study that measures adapters which are there already; paths are relative to the working folder.

    Args:
        adapters: paths, or `name=path` where the name is not to be the file's.
        categories: what the subjects are (`face`, `object`, `style`): none, one for all, or one an adapter.
        overrides: `key=value` pairs of the study, as for `raymap run --set`.
        limit: keep only that many prompts.

    Raises:
        InputError: a wrong argument, named as the command line has it.
    """
    if not adapters:
        raise InputError("--adapter", "is missing", "give at least one adapter file")
    if len(categories) not in (0, 1, len(adapters)):
        problem = f"{len(categories)} categories for {len(adapters)} adapters"
        raise InputError("--category", problem, "give one for all, or one for each in their order")
    for category in categories:
        if category not in get_args(SubjectCategory):
            problem = f"{category!r} is no category of subjects"
            raise InputError("--category", problem, f"use one of {', '.join(get_args(SubjectCategory))}")
    if seeds < 2:
        raise InputError(f"--seeds {seeds}", "is too few for a noise floor", "give at least 2")
    entries = [_entry(given) for given in adapters]
    for entry, category in zip(entries, list(categories) * (len(entries) if len(categories) == 1 else 1), strict=False):
        entry["category"] = category
    defaults = EMBEDDED if base == "embedded" else OTHERS
    names = "-".join(Brought.model_validate(entry).short_name for entry in entries)
    raw: dict[str, Any] = {
        **copy.deepcopy(defaults),
        "name": f"audit-{names[:60].rstrip('-_')}",
        "base": base,
        "suite": suite or defaults["suite"],
        "seeds": seeds,
        "adapters": entries,
    }
    if base != "embedded" and _has_gpu():
        raw["resources"] = {"gpus_per_worker": 1, "workers": 1}
    for pair in overrides:
        override(raw, pair)
    return build_study(raw, "audit", Path(), limit)


def _has_gpu() -> bool:
    import torch  # here, because no other part of an audit's study needs it

    return torch.cuda.is_available()


def _entry(given: str) -> dict[str, Any]:
    named = NAME.fullmatch(given)
    return {"name": named[1], "path": named[2]} if named and not Path(given).exists() else {"path": given}


def flagged(output: Path) -> pl.DataFrame:
    """Return a run folder's non-target cells with what shifted (`raymap.analysis.gate.shifted`)."""
    tests = pl.read_ipc(read_file(output / "shifts.arrow"))
    return shifted(read_map(output), tests, read_noise(output))


def verdicts(cells: pl.DataFrame, statistics: dict[str, Any], limits: Limits) -> tuple[Verdict, ...]:
    """Hold every adapter of a run against the limits."""
    return judge(cells, statistics["adapters"], limits)


def summary(cells: pl.DataFrame, statistics: dict[str, Any], limits: Limits, found: Sequence[Verdict]) -> bytes:
    """Return the JSON summary: the gate's outcome, each adapter's means, and its shifted prompts.

    Args:
        cells: what `flagged` returned.
    """
    any_shift = pl.col("shifted_e_sem") | pl.col("shifted_e_per")
    rows = []
    for adapter in statistics["adapters"]:
        own = cells.filter(pl.col("adapter") == adapter["adapter"])
        hits = own.filter(any_shift).sort("e_sem", "prompt_id", descending=[True, False])
        keys = ("prompt_id", "prompt", "prompt_category", "e_sem", "e_per", "shifted_e_sem", "shifted_e_per")
        rows.append(
            {
                **{key: adapter[key] for key in ("adapter", "method", "subject_category", "e_sem", "e_per")},
                "non_target_prompts": own.height,
                "tested": {name: int(own[f"tested_{name}"].sum()) for name in ("e_sem", "e_per")},
                "shifted": hits.select(keys).to_dicts(),
                "criteria": [verdict.as_dict() for verdict in found if verdict.adapter == adapter["adapter"]],
            }
        )
    return as_json(
        {
            "digest": statistics["digest"],
            "limits": limits.given,
            "passed": all(verdict.passed for verdict in found) if found else None,
            "noise_floor": {k: statistics["noise_floor"][k] for k in ("pairs", "tau_sem", "tau_per")},
            "identity_control": statistics["identity_control"],
            "adapters": rows,
        }
    )


def junit(found: Sequence[Verdict], name: str) -> bytes:
    """Return the verdicts as JUnit XML: one test suite, a test case an adapter and limit, a failure naming prompts."""
    failed = sum(not verdict.passed for verdict in found)
    counts = {"tests": str(len(found)), "failures": str(failed), "errors": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": plain(name), **counts})
    for verdict in found:
        attributes = {"classname": plain(verdict.adapter), "name": f"{verdict.criterion} at most {verdict.limit:g}"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if not verdict.passed:
            failure = ElementTree.SubElement(case, "failure", {"message": message(verdict), "type": verdict.criterion})
            lines = [
                f"{o.prompt_id} {plain(o.prompt)}: E_sem {o.e_sem:.4f}, E_per {o.e_per:.4f}" for o in verdict.offenders
            ]
            failure.text = "\n".join(lines)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def message(verdict: Verdict) -> str:
    """Return one line that says what a verdict found."""
    if verdict.value is None:
        return f"{verdict.criterion}: no non-target prompt was measured"
    if verdict.criterion == "prompts":
        return f"{verdict.value:g} of {verdict.of} non-target prompts shifted, at most {verdict.limit:g} allowed"
    return f"mean {verdict.criterion} {verdict.value:.4f} over {verdict.of} non-target prompts, limit {verdict.limit:g}"
