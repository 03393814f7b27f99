"""The outcome of an audit's limits, written as JSON, as JUnit XML and as messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from raymap.analysis.decide.gate import AuditLimits, Verdict, judge, shifted
from raymap.analysis.read import read_map, read_noise
from raymap.display.text import plain
from raymap.store.folder import as_json


def flagged(output: Path) -> pl.DataFrame:
    """Return a run folder's non-target cells with what shifted (`raymap.analysis.decide.gate.shifted`)."""
    tests = pl.read_ipc((output / "shifts.arrow").read_bytes())
    return shifted(read_map(output), tests, read_noise(output))


def verdicts(cells: pl.DataFrame, statistics: dict[str, Any], limits: AuditLimits) -> tuple[Verdict, ...]:
    """Hold every adapter of a run against the limits."""
    return judge(cells, statistics["adapters"], limits)


def summary(cells: pl.DataFrame, statistics: dict[str, Any], limits: AuditLimits, found: Sequence[Verdict]) -> bytes:
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
