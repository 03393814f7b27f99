"""The outcome of an audit's limits, written as JSON, as JUnit XML and as messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import polars as pl

from raymap.analysis.decide.gate import Verdict, judge, shifted
from raymap.analysis.decide.limits import AuditLimits
from raymap.analysis.measures import BASIC
from raymap.analysis.read import read_map, read_noise
from raymap.analysis.statistics import Statistics
from raymap.display.text import plain
from raymap.store.files import as_json, read_file


def flagged(output: Path) -> pl.DataFrame:
    """Return a run folder's non-target cells with what shifted (`raymap.analysis.decide.gate.shifted`)."""
    tests = pl.read_ipc(read_file(output / "shifts.arrow"))
    return shifted(read_map(output), tests, read_noise(output))


def verdicts(cells: pl.DataFrame, statistics: Statistics, limits: AuditLimits) -> tuple[Verdict, ...]:
    """Check every adapter of a run against the limits."""
    return judge(cells, statistics["adapters"], limits)


def summary(cells: pl.DataFrame, statistics: Statistics, limits: AuditLimits, found: Sequence[Verdict]) -> bytes:
    """Return the JSON summary: the outcome of the gate, and each adapter's means and shifted prompts.

    Args:
        cells: what `flagged` returned.
    """
    floor = statistics["noise_floor"]
    any_shift = pl.col("shifted_e_sem") | pl.col("shifted_e_per")
    rows = []
    for adapter in statistics["adapters"]:
        own = cells.filter(pl.col("adapter") == adapter["adapter"])
        hits = own.filter(any_shift).sort("e_sem", "prompt_id", descending=[True, False])
        keys = ("prompt_id", "prompt", "prompt_category", "e_sem", "e_per", "shifted_e_sem", "shifted_e_per")
        rows.append(
            {
                "adapter": adapter["adapter"],
                "method": adapter["method"],
                "subject_category": adapter["subject_category"],
                "e_sem": adapter["e_sem"],
                "e_per": adapter["e_per"],
                "non_target_prompts": own.height,
                "tested": {m.name: int(own[f"tested_{m.name}"].sum()) for m in BASIC},
                "shifted": hits.select(keys).to_dicts(),
                "criteria": [verdict.as_dict() for verdict in found if verdict.adapter == adapter["adapter"]],
            }
        )
    return as_json(
        {
            "digest": statistics["digest"],
            "limits": limits.given,
            "passed": all(verdict.passed for verdict in found) if found else None,
            "noise_floor": {"pairs": floor["pairs"], "tau_sem": floor["tau_sem"], "tau_per": floor["tau_per"]},
            "identity_control": statistics["identity_control"],
            "adapters": rows,
        }
    )


def junit(found: Sequence[Verdict], name: str) -> bytes:
    """Return the verdicts as JUnit XML: one test suite with one case per adapter and limit; failures name prompts."""
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
    """Return one line that says what was found."""
    if verdict.value is None:
        return f"{verdict.criterion}: no non-target prompt was measured"
    if verdict.criterion == "prompts":
        return f"{verdict.value:g} of {verdict.of} non-target prompts shifted, at most {verdict.limit:g} allowed"
    return f"mean {verdict.criterion} {verdict.value:.4f} over {verdict.of} non-target prompts, limit {verdict.limit:g}"
