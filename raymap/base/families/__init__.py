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


def family_at(folder: Path, base: str | None = None) -> Family:
    """Return the family of a base's folder.

    Args:
        base: the base's name in a study, for errors; the folder by default.

    Raises:
        InputError: model_index.json cannot be read, or names a pipeline of no known family.
    """
    where = f"base: {base or folder}"
    try:
        kind = json.loads((folder / INDEX).read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(where, f"its {INDEX} names no pipeline ({error!r})", "fetch the base again") from error
    family = FAMILIES.get(str(kind))
    if family is None:
        problem = f"its pipeline is a {kind}, and raymap draws with {', '.join(FAMILIES)} alone"
        raise InputError(where, problem, "give a base of such a kind")
    return family


def family_of(pipeline: Any) -> Family:
    """Return the family of a loaded pipeline.

    Raises:
        KeyError: it is of no known family.
    """
    names = [kind.__name__ for kind in type(pipeline).__mro__]
    return FAMILIES[next((name for name in names if name in FAMILIES), names[0])]
