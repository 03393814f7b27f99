"""Studies that need no file: the demo's, and an audit's of adapters that exist already."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from raymap.embedded.model import PIPELINES
from raymap.errors import InputError
from raymap.study.file import build_study, override
from raymap.study.methods.lora import LORA
from raymap.study.model import Brought, Study
from raymap.study.subject import SubjectCategory

DEMO_SEEDS = 3


def demo_study(references: Path) -> Study:
    """Return the study of `raymap demo`, for drawn subjects whose reference images are written into a folder."""
    from raymap.embedded.world.subjects import SUBJECTS  # loads what draws them, which audits do without

    raw = {
        "name": "demo",
        "suite": "embedded-quick",
        "seeds": DEMO_SEEDS,
        "subjects": [subject.entry(references.absolute()) for subject in SUBJECTS],
        "methods": {LORA.name: f"embedded-{LORA.name}"},
    }
    return build_study(raw, "demo", references)


AUDIT_SEEDS = 4
EMBEDDED_DEFAULTS = {"suite": "embedded-quick", "clip": "embedded", "lpips": "embedded"}
"""What an audit on the embedded base takes unless it is told otherwise."""
DEFAULTS = {
    "suite": "quick",
    "clip": "ViT-L-14/openai",
    "lpips": "alex",
}
"""What an audit on any other base takes unless it is told otherwise."""
NAMED_PATH = re.compile(r"([a-z0-9][a-z0-9_-]*)=(.+)")


def audit_study(
    base: str,
    adapters: Sequence[str],
    categories: Sequence[str] = (),
    suite: str | None = None,
    seeds: int = AUDIT_SEEDS,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    weights: str | None = None,
) -> Study:
    """Return the study of `raymap audit`, which measures adapters that exist already.

    Args:
        adapters: paths, relative to the working folder, hub ids or URLs (`raymap.study.source`); or `name=path` to give
            an adapter another name than its file's.
        categories: what the subjects are (`face`, `object`, `style`): none, one for all, or one per adapter.
        suite: the name or path of the prompts, where they are not those of DEFAULTS.
        overrides: `key=value` pairs of the study, as for `raymap run --set`.
        limit: keep only this many prompts.
        weights: the path or URL of a single file whose denoiser takes the place of the base's.

    Raises:
        InputError: a wrong argument, named as on the command line.
    """
    if not adapters:
        raise InputError("--adapter", "is missing", "give at least one adapter")
    if len(categories) not in (0, 1, len(adapters)):
        problem = f"{len(categories)} categories for {len(adapters)} adapters"
        raise InputError("--category", problem, "give one for all, or one for each, in the same order")
    for category in categories:
        if category not in get_args(SubjectCategory):
            problem = f"{category!r} is not a category of subjects"
            raise InputError("--category", problem, f"use one of {', '.join(get_args(SubjectCategory))}")
    if seeds < 2:
        raise InputError(f"--seeds {seeds}", "is too few for a noise floor", "give at least 2")
    entries = [_entry(given) for given in adapters]
    for entry, category in zip(entries, list(categories) * (len(entries) if len(categories) == 1 else 1), strict=False):
        entry["category"] = category
    defaults = EMBEDDED_DEFAULTS if base in PIPELINES else DEFAULTS
    names = "-".join(Brought.model_validate(entry).short_name for entry in entries)
    raw: dict[str, Any] = {
        **copy.deepcopy(defaults),
        "name": f"audit-{names[:60].rstrip('-_')}",
        "base": base,
        "weights": weights,
        "suite": suite or defaults["suite"],
        "seeds": seeds,
        "adapters": entries,
    }
    if base not in PIPELINES and _has_gpu():
        raw["resources"] = {"gpus_per_worker": 1, "workers": 1}
    for pair in overrides:
        override(raw, pair)
    return build_study(raw, "audit", Path(), limit)


def _has_gpu() -> bool:
    import torch  # late, because nothing else here needs it and it takes seconds to load

    return torch.cuda.is_available()


def _entry(given: str) -> dict[str, Any]:
    named = NAMED_PATH.fullmatch(given)
    return {"name": named[1], "path": named[2]} if named and not Path(given).exists() else {"path": given}
