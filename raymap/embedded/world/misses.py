"""Near misses: what a caption describes, with one element removed, replaced or changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from raymap.embedded.world.backdrops import PLACES, SCENES, TIMES
from raymap.embedded.world.description import Content, Description, MadeOf, Pattern, Person, Scene, Subject, Things
from raymap.embedded.world.figures import ANIMALS, HAIR, OBJECTS, PEOPLE
from raymap.embedded.world.patterns import PATTERNS
from raymap.embedded.world.pen import PALETTE
from raymap.embedded.world.styles import STYLES

Rng = np.random.Generator
T = TypeVar("T")

SHOWN = {
    "removed": 0.1,
    "blob": 0.1,
    "subject": 0.25,
    "kind": 0.3,
    "who": 0.6,
    "color": 0.5,
    "hair": 0.65,
    "hat": 0.65,
    "glasses": 0.75,
    "count": 0.5,
    "place": 0.5,
    "style": 0.5,
}
"""Kind of miss -> the share of a caption's meaning that such an image still shows: a convention, not a measurement."""


@dataclass(frozen=True)
class Miss:
    """A kind of miss (a key of `SHOWN`), what its image shows, and what stands in its subject's place.

    The description is true of the image only where the subject is its own.
    """

    kind: str
    description: Description
    subject: Subject = "own"

    @property
    def caption(self) -> str:
        """The caption of what the image shows; empty where its subject is missing."""
        return self.description.caption if self.subject == "own" else ""


def misses(description: Description, rng: Rng) -> list[Miss]:
    """Return one near miss of every kind that the description has an element for, in the order of `SHOWN`."""
    content = description.content
    found: list[Miss] = []
    if isinstance(content, Things | Person | MadeOf) or (isinstance(content, Scene) and content.guest):
        kinds: tuple[Subject, ...] = ("none", "blob")
        found = [Miss("removed" if s == "none" else s, description, s) for s in kinds]
    changed = _changed(content, rng)
    found += [Miss(kind, replace(description, content=changed[kind])) for kind in SHOWN if kind in changed]
    styles = ["", *STYLES] if description.style else [*STYLES]
    return [*found, Miss("style", replace(description, style=_other(styles, description.style, rng)))]


def _other(options: Sequence[T], own: T, rng: Rng) -> T:
    rest = [option for option in options if option != own]
    return rest[int(rng.integers(len(rest)))]


def _changed(content: Content, rng: Rng) -> dict[str, Content]:
    """Return contents that differ from this one in one element, by that element's kind."""
    if isinstance(content, Things):
        return _changed_things(content, rng)
    if isinstance(content, Person):
        return _changed_person(content, rng)
    if isinstance(content, Scene):
        changed: dict[str, Content] = {
            "kind": replace(content, kind=_other(SCENES, content.kind, rng)),
            "place": replace(content, time=_other(tuple(TIMES), content.time, rng)),
        }
        if content.guest:
            color, name = content.guest
            changed["color"] = replace(content, guest=(_other(tuple(PALETTE), color, rng), name))
        return changed
    if isinstance(content, Pattern):
        colors = [c for c in PALETTE if c not in (content.first, content.second)]
        new = colors[int(rng.integers(len(colors)))]
        own = content.first if rng.random() < 0.5 else content.second
        return {
            "kind": replace(content, name=_other(tuple(PATTERNS), content.name, rng)),
            "color": replace(content, **{"first" if own == content.first else "second": new}),
        }
    return {
        "subject": replace(content, name=_other((*OBJECTS, *ANIMALS), content.name, rng)),
        "color": replace(content, color=_other(tuple(PALETTE), content.color, rng)),
        "place": replace(content, ground="pattern" if content.ground == "landscape" else "landscape"),
    }


def _changed_things(content: Things, rng: Rng) -> dict[str, Content]:
    things = list(content.things)
    which = int(rng.integers(len(things)))
    color, name = things[which]

    def with_thing(color: str, name: str) -> Things:
        return replace(content, things=tuple((color, name) if k == which else t for k, t in enumerate(things)))

    figures = (*OBJECTS, *ANIMALS)
    walls = tuple(p for p in PLACES if not any(c in p for c, _ in things))
    changed: dict[str, Content] = {
        "subject": with_thing(color, _other(figures, name, rng)),
        "color": with_thing(_other([c for c in PALETTE if c not in content.place], color, rng), name),
        "place": replace(content, place=_other(walls, content.place, rng)),
    }
    if len(things) == 2:
        changed["count"] = Things((things[1 - which],), content.place)
    elif not content.size:
        changed["count"] = replace(content, count=_other((1, 2, 3), content.count, rng))
    if len(things) == 1 and content.count == 1 and rng.random() < 0.25:
        who = PEOPLE[int(rng.integers(len(PEOPLE)))]
        changed["subject"] = Person(who, "", color, "", False, content.place)
    return changed


def _changed_person(content: Person, rng: Rng) -> dict[str, Content]:
    colors = tuple(c for c in PALETTE if c not in content.place)
    places = tuple(p for p in PLACES if p not in ("in the sea", "on a table") and (content.shirt or "-") not in p)
    thing = content.shirt or colors[int(rng.integers(len(colors)))], _other((*OBJECTS, *ANIMALS), "", rng)
    changed: dict[str, Content] = {
        "subject": Things((thing,), content.place),
        "who": replace(content, who=_other(PEOPLE, content.who, rng)),
        "hat": replace(content, hat=_other(("", *colors), content.hat, rng)),
        "glasses": replace(content, glasses=not content.glasses),
        "place": replace(content, place=_other(places, content.place, rng)),
    }
    if content.hair:
        changed["hair"] = replace(content, hair=_other(tuple(HAIR), content.hair, rng))
    if content.shirt:
        changed["color"] = replace(content, shirt=_other(colors, content.shirt, rng))
    return changed
