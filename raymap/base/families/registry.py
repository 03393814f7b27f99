"""Which families of bases there are, raymap's own and those of installed packages, and to which one a base belongs."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from raymap.base.families.family import Family
from raymap.base.families.stable_diffusion import STABLE_DIFFUSION
from raymap.base.shapes import INDEX, index_of
from raymap.errors import InputError

FAMILIES: dict[str, Family] = {
    family.class_name: family
    for family in (
        STABLE_DIFFUSION,
    )
}  # fmt: skip
"""raymap's own families, by the name of their pipeline's class."""
GROUP = "raymap.families"
"""The entry points by which an installed package adds families: `PipelineClass = "module:FAMILY"`, a `Family`."""


def family_names() -> tuple[str, ...]:
    """Return the names of all families' pipelines: raymap's own, then those of installed packages."""
    return (*FAMILIES, *sorted({entry.name for entry in entry_points(group=GROUP)} - FAMILIES.keys()))


@cache
def find_family(class_name: str) -> Family | None:
    """Return the family whose pipeline's class has this name; None where there is none.

    Raises:
        InputError: an installed package offers it, and it cannot be loaded or is not a family of such pipelines.
    """
    if class_name in FAMILIES:
        return FAMILIES[class_name]
    for entry in entry_points(group=GROUP, name=class_name):
        where = f"family {class_name} of the package {entry.dist.name if entry.dist else '?'}"
        try:
            family = entry.load()
        except Exception as error:  # whatever a package of others raises while it is imported
            raise InputError(where, f"cannot be loaded ({error!r})", "correct or uninstall the package") from error
        if not isinstance(family, Family) or family.class_name != class_name:
            problem = f"{entry.value} does not describe pipelines of this class"
            raise InputError(where, problem, "let it name an instance of raymap.base.families.family.Family")
        return family
    return None


def family_at(folder: Path, base: str | None = None) -> Family:
    """Return the family of a base's folder.

    Args:
        base: the base's name in a study, for errors; the folder by default.

    Raises:
        InputError: model_index.json cannot be read or names a pipeline of no known family; or as `find_family`.
    """
    where = f"base: {base or folder}"
    try:
        name = str(index_of(folder)["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(where, f"its {INDEX} names no pipeline ({error!r})", "fetch the base again") from error
    family = find_family(name)
    if family is None:
        problem = f"its pipeline is a {name}, and raymap draws with {', '.join(family_names())} alone"
        raise InputError(where, problem, "give a base of such a kind")
    return family


def family_of(pipeline: Any) -> Family:
    """Return the family of a loaded pipeline.

    Raises:
        TypeError: it is of no known family.
    """
    for kind in type(pipeline).__mro__:
        family = find_family(kind.__name__)
        if family is not None:
            return family
    raise TypeError(f"{type(pipeline).__name__} is a pipeline of no known family")
