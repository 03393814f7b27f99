"""Further judges, beside CLIP and LPIPS: what a judge offers, which ones exist, and how one is loaded.

A judge is a class. Its attributes say what its numbers mean and are read before anything starts; its constructor takes
the type of device (`cpu` or `cuda`) and loads what it needs. Judges of other packages are found through entry points.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, cast

import numpy as np

from raymap.errors import InputError
from raymap.study.judge import JudgeInfo

GROUP = "raymap.judges"
"""The group of entry points in which other packages list their judges."""

JUDGES: dict[str, str] = {
    "blurred-rms": "raymap.scoring.blurred:BlurredRms",
}
"""The built-in judges: a name, and where its class is defined. No module is imported before a study asks for it."""


class PairJudge(Protocol):
    """Measures how far an adapted image lies from the base image of the same prompt and seed, as LPIPS does.

    Attributes:
        version: changes whenever a number may change, for example with the digest of the judge's weights.
        unit: the unit of a distance, as reports print it.
    """

    version: str
    unit: str

    def __init__(self, device: str) -> None: ...

    def distances(self, base: np.ndarray, adapted: np.ndarray) -> np.ndarray:
        """Return one distance per pair, floats (N,): 0 for equal images, and larger for images that differ more.

        Args:
            base, adapted: uint8 (N, H, W, 3), read-only.
        """
        ...


class PromptJudge(Protocol):
    """Scores how well an image fits its prompt, as CLIP does; base and adapted images are scored separately.

    Attributes:
        version: changes whenever a number may change, for example with the digest of the judge's weights.
        unit: the unit of a score, as reports print it.
        higher_is_better: whether a higher score is that of a better image.
    """

    version: str
    unit: str
    higher_is_better: bool

    def __init__(self, device: str) -> None: ...

    def scores(self, prompts: list[str], pixels: np.ndarray) -> np.ndarray:
        """Return one score per image, floats (N,).

        Args:
            prompts: one per image.
            pixels: uint8 (N, H, W, 3), read-only.
        """
        ...


def known_judges() -> dict[str, tuple[str, ...]]:
    """Return where each judge is defined, by name: once, unless two packages claim the same name."""
    known: dict[str, tuple[str, ...]] = {name: (place,) for name, place in JUDGES.items()}
    for entry in entry_points(group=GROUP):
        known[entry.name] = (*known.get(entry.name, ()), f"{entry.module}:{entry.attr}")
    return known


def judge_infos(names: Iterable[str]) -> tuple[JudgeInfo, ...]:
    """Return what the judges of these names declare; none of them is built.

    Raises:
        InputError: there is no judge of a name, or its class cannot be imported or does not declare what it must.
    """
    return tuple(_info(name, _class_of(name)) for name in names)


def load_judge(name: str, device: str) -> PairJudge | PromptJudge:
    """Build a judge on a type of device: `cpu` or `cuda`.

    Raises:
        InputError: as `judge_infos`, or the judge cannot be built.
    """
    judge = _class_of(name)
    try:
        return cast(PairJudge | PromptJudge, judge(device))
    except InputError:
        raise
    except Exception as error:
        problem = f"cannot be loaded ({type(error).__name__}: {error})"
        raise InputError(f"judges: {name}", problem, "see what the package that offers it asks for") from error


def _class_of(name: str) -> Any:
    known = known_judges()
    places = known.get(name, ())
    if not places:
        remedy = f"use one of {', '.join(sorted(known))}, or install the package that offers it"
        raise InputError(f"judges: {name}", "is no judge that is installed here", remedy)
    if len(places) > 1:
        raise InputError(f"judges: {name}", f"is offered by {' and by '.join(places)}", "uninstall one of them")
    try:
        return pkgutil.resolve_name(places[0])
    except Exception as error:
        problem = f"cannot be imported from {places[0]} ({type(error).__name__}: {error})"
        raise InputError(f"judges: {name}", problem, "correct or reinstall the package that offers it") from error


def _info(name: str, judge: Any) -> JudgeInfo:
    kinds: dict[str, Literal["pair", "prompt"]] = {"distances": "pair", "scores": "prompt"}
    offered = [kind for method, kind in kinds.items() if callable(getattr(judge, method, None))]
    remedy = "see docs/judges.md for what a judge declares"
    if not callable(judge) or len(offered) != 1:
        raise InputError(f"judges: {name}", "has not exactly one of the methods `distances` and `scores`", remedy)
    kind = offered[0]
    asked = {"version": str, "unit": str, **({"higher_is_better": bool} if kind == "prompt" else {})}
    for attribute, wanted in asked.items():
        value = getattr(judge, attribute, None)
        if not isinstance(value, wanted) or value == "":
            raise InputError(f"judges: {name}", f"declares no `{attribute}` ({wanted.__name__}) on its class", remedy)
    return JudgeInfo(name, kind, judge.version, judge.unit, kind == "prompt" and judge.higher_is_better)
