"""Which personalization methods there are: raymap's own, and those of installed packages."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, SerializationInfo

from raymap.errors import InputError
from raymap.study.methods.custom_diffusion import CUSTOM_DIFFUSION
from raymap.study.methods.lora import LORA
from raymap.study.methods.method import CONTROL, Method
from raymap.study.methods.textual_inversion import TEXTUAL_INVERSION
from raymap.study.recipes import Recipe
from raymap.study.subject import NAME

METHODS: dict[str, Method[Any]] = {m.name: m for m in (TEXTUAL_INVERSION, LORA, CUSTOM_DIFFUSION)}
"""raymap's own methods, in the order in which tables and figures list them."""
GROUP = "raymap.methods"
"""The entry points by which an installed package adds methods: `name = "module:METHOD"`, an instance of `Method`."""


def method_names() -> tuple[str, ...]:
    """Return the names of all methods: raymap's own, then those of installed packages, which are not loaded for it."""
    return (*METHODS, *sorted({entry.name for entry in entry_points(group=GROUP)} - METHODS.keys()))


@cache
def find_method(name: str) -> Method[Any] | None:
    """Return the method of this name, None where there is none. A name of raymap's own cannot be taken by another.

    Raises:
        InputError: an installed package has it, and it cannot be loaded or is not a method of that name; or several
            packages have it.
    """
    if name in METHODS:
        return METHODS[name]
    entries = tuple(entry_points(group=GROUP, name=name))
    if not entries:
        return None
    packages = " and ".join(entry.dist.name if entry.dist else "?" for entry in entries)
    where = f"method {name} of {packages}"
    if len(entries) > 1:
        raise InputError(where, "is the name of several methods", "uninstall all of these packages but one")
    try:
        method = entries[0].load()
    except Exception as error:  # whatever another package raises while it is imported
        raise InputError(where, f"cannot be loaded ({error!r})", "correct or uninstall the package") from error
    if not isinstance(method, Method) or method.name != name or not re.fullmatch(NAME, name) or name == CONTROL:
        problem = f"{entries[0].value} is not a method that may be called {name!r}"
        raise InputError(where, problem, "let it name an instance of raymap.study.methods.method.Method")
    return method


def known_method(name: str) -> Method[Any]:
    """Return the method of this name.

    Raises:
        InputError: there is none; or as `find_method`.
    """
    method = find_method(name)
    if method is None:
        remedy = f"install the package that has it, or use one of {', '.join(method_names())}"
        raise InputError(f"method {name}", "is not known here", remedy)
    return method


def rank(name: str) -> tuple[int, str]:
    """Return a method's sort key for tables and figures: raymap's own in their order, then all others by name."""
    own = list(METHODS)
    return own.index(name) if name in own else len(own), name


def _named(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    return {name: (name, keys) for name, keys in given.items() if keys is not None}


def _recipe(named: tuple[str, Any]) -> Recipe:
    name, keys = named
    method = find_method(name)
    if method is None:
        raise ValueError(f"is not a personalization method; use one of {', '.join(method_names())}")
    recipe: Recipe = method.recipe.model_validate(method.settings(keys))
    return recipe


def _in_order(recipes: dict[str, Recipe]) -> dict[str, Recipe]:
    return dict(sorted(recipes.items(), key=lambda item: rank(item[0])))


def _dumped(recipes: dict[str, Recipe], info: SerializationInfo) -> dict[str, Any]:
    given = {name: recipe.model_dump(mode=info.mode) for name, recipe in recipes.items()}
    return dict.fromkeys(METHODS) | given


Recipes = Annotated[
    dict[str, Annotated[Recipe, BeforeValidator(_recipe)]],
    BeforeValidator(_named),
    AfterValidator(_in_order),
    PlainSerializer(_dumped),
]
"""A study's `methods`: method -> recipe, in the order of `rank`.

A study gives a recipe's keys, or the name of a preset, or null for none. Written out, raymap's own methods that the
study does not use are null.
"""
