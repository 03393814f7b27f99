"""The study that most tests run: one drawn subject, seven prompts, two seeds, short samplings, one worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from raymap.embedded.world.subjects import STAR_CUP

PROMPTS = {
    "people": ["a man with black hair in a blue shirt"],
    "animals": ["a brown bear on snow"],
    "objects": ["a red car on a street", "a blue teapot on a table"],
    "scenes": ["a city at night"],
    "styles": ["a pencil sketch of a gray dog"],
    "abstract": ["red and blue stripes"],
}


def small_study(folder: Path, **changes: Any) -> Path:
    """Write the study, with other values for some keys and without those that are None; return its path."""
    references = [str(path) for path in STAR_CUP.write_references(folder / "references", n=3)]
    raw: dict[str, Any] = {
        "name": "small",
        "seeds": 2,
        "sampler": {"steps": 3, "guidance_scale": 3.0},
        "prompts": PROMPTS,
        "batch_size": 4,
        "images": "all",
        "subjects": [{"name": "star-cup", "category": "object", "class_word": "cup", "references": references}],
        "methods": {"lora": {"steps": 20, "batch_size": 2, "learning_rate": 1e-3}},
        "resources": {"workers": 1},
    }
    raw.update(changes)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}))
    return path
