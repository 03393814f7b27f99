"""The demo's study: three subjects of the procedural world, a quick suite over all six categories."""

from __future__ import annotations

from pathlib import Path

from raymap.embedded.subjects import SUBJECTS
from raymap.study import Study, build_study

SEEDS = 3


def demo_study(references: Path) -> Study:
    """Draw the subjects' references into a folder and return the study that personalizes for them."""
    subjects = [
        {
            "name": subject.name,
            "category": subject.category,
            "class_word": subject.class_word,
            "references": [str(path.absolute()) for path in subject.write_references(references / subject.name)],
        }
        for subject in SUBJECTS
    ]
    raw = {
        "name": "demo",
        "suite": "embedded-quick",
        "seeds": SEEDS,
        "subjects": subjects,
        "methods": {"lora": "embedded-lora"},
    }
    return build_study(raw, "demo", references)
