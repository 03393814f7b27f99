"""Captions of the world as structures: read from a caption, changed element by element, and drawn again.

What an image shows and how it shows it are drawn from separate random numbers. Two descriptions that are rendered with
one seed therefore share everything that they do not differ in: the layout, the light, the details of the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from raymap.embedded.world.backdrops import PLACES, SCENES, TIMES, graded, scene
from raymap.embedded.world.captioned import article, lit, plural
from raymap.embedded.world.figures import ANIMALS, HAIR, OBJECTS, PEOPLE, SKIN, Figure, person
from raymap.embedded.world.patterns import PATTERNS, made_of
from raymap.embedded.world.pen import PALETTE, RGB, Pen, shrink
from raymap.embedded.world.styles import STYLES

Rng = np.random.Generator
Subject = Literal["own", "none", "blob"]
"""What stands where a description has its subject: the subject itself, nothing, or a patch of random colours."""

NUMBERS = {"two": 2, "three": 3}
_COLOR = "|".join(PALETTE)
_FIGURES: dict[str, Figure] = {**OBJECTS, **ANIMALS}
_SINGULAR = {plural(name): name for name in _FIGURES}
_ONE, _MANY = "|".join(_FIGURES), "|".join(_SINGULAR)


@dataclass(frozen=True)
class Things:
    """One or two coloured figures, or `count` equal ones, at a place."""

    things: tuple[tuple[str, str], ...]
    place: str
    count: int = 1
    size: str = ""
    joint: str = "and"

    @property
    def caption(self) -> str:
        color, name = self.things[0]
        if self.count > 1:
            number = next(word for word, n in NUMBERS.items() if n == self.count)
            return f"{number} {color} {plural(name)} {self.place}".strip()
        named = f" {self.joint} ".join(article(f"{self.size}{' ' * bool(self.size)}{c} {n}") for c, n in self.things)
        return f"{named} {self.place}".strip()


@dataclass(frozen=True)
class Person:
    """A person at a place; hair and shirt may be left unsaid, a hat and glasses may be absent: all of them empty."""

    who: str
    hair: str
    shirt: str
    hat: str
    glasses: bool
    place: str

    @property
    def caption(self) -> str:
        words = [article(self.who)]
        words += [f"with {self.hair} hair"] if self.hair else []
        words += [f"in {article(self.shirt)} shirt"] if self.shirt else []
        extras = [f"{article(self.hat)} hat"] if self.hat else []
        extras += ["glasses"] if self.glasses else []
        words += ["wearing " + " and ".join(extras)] if extras else []
        return " ".join([*words, self.place]).strip()


@dataclass(frozen=True)
class Scene:
    """A view at a time, perhaps with a coloured figure in it."""

    kind: str
    time: str
    guest: tuple[str, str] | None = None

    @property
    def caption(self) -> str:
        guest = f"with {article(' '.join(self.guest))} " if self.guest else ""
        return f"{article(self.kind)} {guest}{self.time}".strip()


@dataclass(frozen=True)
class Pattern:
    """A pattern in two colours."""

    name: str
    first: str
    second: str

    @property
    def caption(self) -> str:
        if self.name == "dots":
            return f"{self.first} dots on {self.second}"
        if self.name == "gradient":
            return f"a gradient from {self.first} to {self.second}"
        if self.name in ("chaos", "spiral"):
            return f"{'chaos' if self.name == 'chaos' else 'a spiral'} in {self.first} and {self.second}"
        return f"{self.first} and {self.second} {self.name}"


@dataclass(frozen=True)
class MadeOf:
    """A landscape or a plain ground, covered with copies of one figure."""

    ground: str
    color: str
    name: str

    @property
    def caption(self) -> str:
        return f"a {self.ground} made of {self.color} {plural(self.name)}"


Content = Things | Person | Scene | Pattern | MadeOf


@dataclass(frozen=True)
class Description:
    """What an image shows, and the style it is in (empty: none)."""

    content: Content
    style: str = ""

    @property
    def caption(self) -> str:
        """The caption as the world's grammars write it."""
        return f"{article(self.style)} of {self.content.caption}" if self.style else self.content.caption

    def render(self, seed: int, subject: Subject = "own") -> np.ndarray:
        """Draw one image, uint8 (64, 64, 3); equal seeds give equal layouts."""
        return self.render_with_mask(seed, subject)[0]

    def render_with_mask(self, seed: int, subject: Subject = "own") -> tuple[np.ndarray, np.ndarray]:
        """Draw one image, uint8 (64, 64, 3), and say where its subject is, bool (64, 64); patterns have none."""
        ground, whole = _canvases(self.content, seed, subject)
        mask = np.abs(shrink(ground).astype(int) - shrink(whole)).max(-1) > 8
        pixels = lit(shrink(whole), _stream(seed, 2))
        return (STYLES[self.style](pixels, _stream(seed, 3)) if self.style else pixels), mask


def describe(caption: str) -> Description:
    """Read a caption of the world.

    Raises:
        ValueError: no grammar of the world writes this caption.
    """
    style = next((s for s in STYLES if caption.startswith(f"{article(s)} of ")), "")
    rest = caption.removeprefix(f"{article(style)} of ") if style else caption
    for read in (_person, _scene, _pattern, _made_of, _things):
        content = read(rest)
        if content is not None and Description(content, style).caption == caption:
            return Description(content, style)
    raise ValueError(f"{caption!r} is no caption of the world")


def _place_of(text: str) -> tuple[str, str]:
    place = max((p for p in PLACES if p and text.endswith(f" {p}")), key=len, default="")
    return text.removesuffix(place).strip(), place


def _person(text: str) -> Person | None:
    rest, place = _place_of(text)
    pattern = (
        rf"an? ({'|'.join(PEOPLE)})(?: with ({'|'.join(HAIR)}) hair)?(?: in an? ({_COLOR}) shirt)?"
        rf"(?: wearing (?:an? ({_COLOR}) hat)?(?: and )?(glasses)?)?"
    )
    found = re.fullmatch(pattern, rest)
    if not found:
        return None
    who, hair, shirt, hat, glasses = found.groups()
    return Person(who, hair or "", shirt or "", hat or "", bool(glasses), place)


def _scene(text: str) -> Scene | None:
    time = max((t for t in TIMES if t and text.endswith(f" {t}")), key=len, default="")
    found = re.fullmatch(
        rf"an? ({'|'.join(SCENES)})(?: with an? ({_COLOR}) ({_ONE}))?", text.removesuffix(time).strip()
    )
    if not found:
        return None
    kind, color, name = found.groups()
    return Scene(kind, time, (color, name) if color else None)


def _pattern(text: str) -> Pattern | None:
    for pattern in (
        rf"(?P<a>{_COLOR}) (?P<name>dots) on (?P<b>{_COLOR})",
        rf"(?:a )?(?P<name>gradient|chaos|spiral) (?:from|in) (?P<a>{_COLOR}) (?:to|and) (?P<b>{_COLOR})",
        rf"(?P<a>{_COLOR}) and (?P<b>{_COLOR}) (?P<name>{'|'.join(PATTERNS)})",
    ):
        if found := re.fullmatch(pattern, text):
            return Pattern(found["name"], found["a"], found["b"])
    return None


def _made_of(text: str) -> MadeOf | None:
    found = re.fullmatch(rf"a (landscape|pattern) made of ({_COLOR}) ({_MANY})", text)
    return MadeOf(found[1], found[2], _SINGULAR[found[3]]) if found else None


def _things(text: str) -> Things | None:
    rest, place = _place_of(text)
    if found := re.fullmatch(rf"(two|three) ({_COLOR}) ({_MANY})", rest):
        return Things(((found[2], _SINGULAR[found[3]]),), place, NUMBERS[found[1]])
    if found := re.fullmatch(rf"an? (small|big)? ?({_COLOR}) ({_ONE})", rest):
        return Things(((found[2], found[3]),), place, size=found[1] or "")
    if found := re.fullmatch(rf"an? ({_COLOR}) ({_ONE}) (and|next to) an? ({_COLOR}) ({_ONE})", rest):
        return Things(((found[1], found[2]), (found[4], found[5])), place, joint=found[3])
    return None


def _stream(seed: int, purpose: int) -> Rng:
    return np.random.default_rng((seed, purpose))


def _canvases(content: Content, seed: int, subject: Subject) -> tuple[Image.Image, Image.Image]:
    """Return the oversampled canvas without and with the subject."""
    behind, before = _stream(seed, 0), _stream(seed, 1)
    if isinstance(content, Pattern):
        canvas = PATTERNS[content.name](PALETTE[content.first], PALETTE[content.second], before)
        return canvas, canvas
    if isinstance(content, MadeOf):
        ground = (
            scene("field", "", behind) if content.ground == "landscape" else graded((240, 238, 232), (232, 228, 220))
        )
    elif isinstance(content, Scene):
        ground = scene(content.kind, content.time, behind)
    else:
        ground = PLACES[content.place](behind)
    whole = ground.copy()
    if subject != "none":
        _add_subject(whole, content, before, _blob(_stream(seed, 4)) if subject == "blob" else None)
    return ground, whole


def _add_subject(canvas: Image.Image, content: Content, rng: Rng, blob: Figure | None) -> None:
    if isinstance(content, Things):
        _add_things(canvas, content, rng, blob)
    elif isinstance(content, Person):
        _add_person(canvas, content, rng, blob)
    elif isinstance(content, MadeOf):
        made_of(blob or _FIGURES[content.name], PALETTE[content.color], canvas, rng)
    elif isinstance(content, Scene) and content.guest:
        pen = Pen(canvas, rng.uniform(0.3, 0.7), rng.uniform(0.66, 0.78), rng.uniform(0.15, 0.2))
        (blob or _FIGURES[content.guest[1]])(pen, PALETTE[content.guest[0]])


def _add_things(canvas: Image.Image, content: Things, rng: Rng, blob: Figure | None) -> None:
    n = max(content.count, len(content.things))
    size = {"": 1.0, "small": 0.55, "big": 1.28}[content.size]
    if len(content.things) == 2:
        spots = [(0.27, 0.68), (0.73, 0.68)]
        spots = spots if rng.random() < 0.5 else spots[::-1]
    else:
        rng.random()  # so that later numbers are the same for one figure and for two
        spots = [((k + 0.5) / n, 1.34 / n if n > 1 else size) for k in range(n)]
    for k, (x, relative) in enumerate(spots):
        color, name = content.things[min(k, len(content.things) - 1)]
        scale = relative * rng.uniform(0.29, 0.37)
        wobble = 0.08 * min(relative, 1.0)
        at = x + rng.uniform(-wobble, wobble), 0.56 + (0.34 - scale) * 0.5 + rng.uniform(-0.05, 0.05)
        (blob or _FIGURES[name])(Pen(canvas, *at, scale, bool(rng.random() < 0.5)), PALETTE[color])


def _add_person(canvas: Image.Image, content: Person, rng: Rng, blob: Figure | None) -> None:
    pen = Pen(canvas, rng.uniform(0.42, 0.58), rng.uniform(0.56, 0.64), rng.uniform(0.36, 0.44))
    hair, shirt = (names[int(rng.integers(len(names)))] for names in (tuple(HAIR), tuple(PALETTE)))
    skin = SKIN[int(rng.integers(len(SKIN)))]
    cloth = PALETTE[content.shirt or shirt]
    if blob:
        blob(pen, cloth)
        return
    hat = PALETTE[content.hat] if content.hat else None
    person(pen, content.who, HAIR[content.hair or hair], cloth, skin, hat, content.glasses)


def _blob(rng: Rng) -> Callable[[Pen, RGB], None]:
    """Return a figure of a few overlapping ellipses: half of them in the colour that is asked for."""
    shapes = [(rng.uniform(-0.5, 0.5, 2), rng.uniform(0.25, 0.75, 2), rng.integers(20, 250, 3)) for _ in range(5)]
    own = rng.random(5) < 0.5

    def figure(pen: Pen, color: RGB) -> None:
        for ((x, y), (rx, ry), other), keeps in zip(shapes, own, strict=True):
            pen.ellipse(x, y, rx, ry, color if keeps else (int(other[0]), int(other[1]), int(other[2])))

    return figure
