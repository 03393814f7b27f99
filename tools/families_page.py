"""Writes the table of families and what raymap does with each into docs/bases.md, from the results of tests.

    python -m tools.families_page [--results junit.xml]

Without the results of an earlier run, all tests of families are run, which takes some twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

from raymap.base.families.registry import find_family
from tests.pipelines import TINY

PAGE = Path("docs/bases.md")
START, END = "<!-- families -->\n", "<!-- /families -->\n"
FEATURES = {
    "drawn as its pipeline draws": "test_images_are_those_of_the_pipeline_itself",
    "neighbours change nothing": "test_neighbours_in_a_batch_change_nothing",
    "LoRA, null and restored to the bit": "test_a_lora_changes_images_and_its_null_changes_none",
    "Textual Inversion proved": "test_a_learned_token_acts_where_it_is_written_and_is_proved_to_act_nowhere_else",
    "attention": "test_attention_is_shifted_by_a_lora_and_by_its_null_not_at_all",
    "trained": "test_the_loss_falls_under_the_adapter_that_a_run_reads",
    "FLOPs counted": "test_a_denoisers_flops_are_those_that_torch_counts",
    "audited to a report": "test_an_audit_ends_with_a_report_and_a_control_of_exactly_zero",
}
"""The columns of the table, each with the test that a family has to pass."""
NAMED = re.compile(r"(?P<test>\w+)\[(?P<family>\w+?)(?:-.*)?\]")
TESTS = ("tests/families", "tests/base/slow/test_flops.py", "tests/personalize/slow/test_families.py")


def main() -> None:
    """Run the tests, or read the results of a run, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, nargs="+", help="JUnit XML files of an earlier run of them")
    args = parser.parse_args()
    if args.results:
        passed = passed_in(*args.results)
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "junit.xml"
            command = [sys.executable, "-m", "pytest", *TESTS, f"--junitxml={results}"]
            subprocess.run(command, env=os.environ | {"RAYMAP_ALL_FAMILIES": "1"}, check=False)
            passed = passed_in(results)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + START + table(passed) + END + after, encoding="utf-8")


def passed_in(*results: Path) -> dict[str, set[str]]:
    """Return the tests that each family passed, by the family's name in tests/pipelines.py."""
    passed: dict[str, set[str]] = defaultdict(set)
    for case in (case for file in results for case in ET.parse(file).iter("testcase")):
        match = NAMED.fullmatch(case.get("name", ""))
        if match and len(case) == 0:
            passed[match["family"]].add(match["test"])
    return passed


def table(passed: dict[str, set[str]]) -> str:
    """Return the table: one row per family, a tick for each test that it passed."""
    rows = [("family", "pipeline", *FEATURES), ("---",) * (2 + len(FEATURES))]
    for name, make in TINY.items():
        kind = type(make()[0]).__name__
        family = find_family(kind)
        title = f"{family.title if family else kind}{' (schnell)' if name.endswith('schnell') else ''}"
        rows.append((title, f"`{kind}`", *("✓" if test in passed[name] else "–" for test in FEATURES.values())))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
