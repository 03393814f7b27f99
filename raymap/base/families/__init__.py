"""The families of bases that raymap knows. A new one is described in a file of its own and added to `FAMILIES`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raymap.base.families.stable_diffusion import STABLE_DIFFUSION
from raymap.base.family import Family
from raymap.errors import InputError

INDEX = "model_index.json"

FAMILIES: dict[str, Family] = {
    family.class_name: family
    for family in (
        STABLE_DIFFUSION,
    )
}  # fmt: skip
"""Every family, by the name of its pipeline's class."""


def family_at(folder: Path) -> Family:
    """Return the family of a base's folder.

    Raises:
        InputError: model_index.json cannot be read, or names a pipeline of no known family.
    """
    path = folder / INDEX
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), f"names no pipeline ({error!r})", "fetch the base again") from error
    if name not in FAMILIES:
        problem = f"is a base of the kind {name}, which raymap does not know"
        raise InputError(str(path), problem, f"give one of the kind {' or '.join(FAMILIES)}")
    return FAMILIES[name]


def family_of(pipeline: Any) -> Family:
    """Return the family of a loaded pipeline.

    Raises:
        KeyError: it is of no known family.
    """
    names = [kind.__name__ for kind in type(pipeline).__mro__]
    return FAMILIES[next((name for name in names if name in FAMILIES), names[0])]
