"""What jobs/paper.yaml would take: what `raymap run jobs/paper.yaml --dry-run` prints, as data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from raymap.driver.cost import estimate
from raymap.driver.prepare import Prepared, prepare
from raymap.study.file import load_study

JOB = Path(__file__).parents[2] / "jobs" / "paper.yaml"
ACCELERATORS = ("A100", "H100")


def planned(job: Path = JOB) -> dict[str, Any]:
    """Return the images, those proved identical, bytes on disk, and hours of one device of each of ACCELERATORS."""
    prepared = prepare(load_study(job), dry=True)
    costs = [estimate(_on(prepared, kind)) for kind in ACCELERATORS]
    study = prepared.study
    controls = sum(order.subject is None for order in prepared.orders)
    return {
        "study": study.name,
        "prompts": len(study.prompts),
        "seeds": len(study.seeds),
        "adapters": len(prepared.orders) - controls,
        "controls": controls,
        "steps": study.sampler.steps,
        "dtype": study.dtype,
        "images": costs[0].images,
        "proved": prepared.proved,
        "drawn": costs[0].drawn,
        "bytes": costs[0].bytes,
        "devices": [{"on": c.on, "drawing_h": c.drawing_h, "training_h": c.training_h} for c in costs],
    }


def _on(prepared: Prepared, kind: str) -> Prepared:
    study = prepared.study
    resources = study.resources.model_copy(update={"accelerator_type": kind})
    return replace(prepared, study=study.model_copy(update={"resources": resources}))
