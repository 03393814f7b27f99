"""What is loaded without torch and Ray, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import python

WITHOUT_TORCH = "assert not {'torch', 'diffusers', 'peft'} & sys.modules.keys(), sorted(sys.modules)"


def test_analysis_and_report_load_neither_torch_nor_ray() -> None:
    code = (
        "import sys, raymap.analysis.reduce, raymap.report.page, raymap.analysis.numerics.distances\n"
        "import raymap.analysis.why.attention, raymap.analysis.why.factorial, raymap.analysis.why.interventions\n"
        "from raymap.analysis.paper.published import load_paper; load_paper()\n"
        "assert not {'torch', 'ray', 'diffusers'} & sys.modules.keys(), sorted(sys.modules)"
    )
    python(code)


def test_a_driver_loads_no_torch() -> None:
    """Neither what it imports nor what actors answer with (`Step` of a trainer) is defined where torch is."""
    code = (
        "import sys, raymap.driver.run, raymap.driver.attention, raymap.study.builtin, raymap.personalize.step\n"
        "import raymap.cluster.stream, raymap.cluster.training\n"
    )
    python(code + WITHOUT_TORCH)


@pytest.mark.parametrize("command", ["run", "train", "attention"])
def test_a_dry_run_of_a_study_that_trains_its_adapters_loads_no_torch(command: str, study: Path) -> None:
    code = "import sys\nfrom raymap.cli import app\napp(standalone_mode=False)\n"
    python(code + WITHOUT_TORCH, command, study, "--dry-run")


def test_asking_for_all_names_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, raymap\n"
        "assert not {'polars', 'numpy', 'pyarrow', 'pydantic'} & sys.modules.keys()\n"
        "[getattr(raymap, name) for name in raymap.__all__]\n"
        "assert not {'torch', 'ray', 'diffusers'} & sys.modules.keys()"
    )
    python(code)
