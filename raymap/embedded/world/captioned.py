"""The procedural world: captioned 64x64 images, drawn at random.

Each of six categories has a small grammar. A caption names what decides the image; what it does not mention (position,
size, light, the details of a place) varies from one drawing to the next. One caption in sixteen, chosen by its hash, is
held out: no model is trained on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from raymap.embedded.world.backdrops import PLACES, SCENES, TIMES, graded, scene
from raymap.embedded.world.figures import ANIMALS, HAIR, OBJECTS, PEOPLE, SKIN, Figure, person
from raymap.embedded.world.patterns import PATTERNS, made_of
from raymap.embedded.world.pen import OVERSAMPLE, PALETTE, Pen, shrink
from raymap.embedded.world.styles import STYLES

Rng = np.random.Generator
CATEGORIES = ("people", "animals", "objects", "scenes", "styles", "abstract")
SHARES = (0.16, 0.17, 0.21, 0.13, 0.20, 0.13)
HUES = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
FUR = ("brown", "black", "white", "orange", "gray")
_PLURALS = {"box": "boxes", "fish": "fish", "butterfly": "butterflies"}
_GROUNDED = ("", "on a table", "on grass", "on snow", "on the beach", "in a room", "on a street", "at night")


@dataclass(frozen=True)
class Motif:
    """A caption and how to draw images of it.

    `labels` are what a viewer can recognize (kind, colours, place, style). `hue` names the colour of the only saturated
    thing in the image, where there is exactly one; otherwise it is empty.
    """

    category: str
    caption: str
    labels: tuple[str, ...]
    draw: Callable[[Rng], Image.Image] = field(compare=False, repr=False)
    style: str = ""
    hue: str = ""

    def render(self, rng: Rng) -> np.ndarray:
        """Draw one image, uint8 (64, 64, 3)."""
        pixels = lit(shrink(self.draw(rng)), rng)
        return STYLES[self.style](pixels, rng) if self.style else pixels


def lit(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    """Vary an image's brightness, tint and direction of light a little; uint8 (H, W, 3) in and out."""
    rows, columns = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    slope = rng.uniform(-0.05, 0.05, 2)
    gain = rng.uniform(0.94, 1.04) + slope[0] * rows + slope[1] * columns
    tint = rng.normal(0, 2.5, 3)
    noisy = pixels * gain[..., None] + tint + rng.normal(0, 1.5, pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def is_held_out(caption: str) -> bool:
    """Return whether a caption is excluded from training (one in sixteen, by its SHA-256)."""
    return hashlib.sha256(caption.encode()).digest()[0] % 16 == 0


def article(words: str) -> str:
    """Return `words` with the indefinite article that fits."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def plural(noun: str) -> str:
    return _PLURALS.get(noun, noun + "s")


def _pick(rng: Rng, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _placed(figure: Figure, color: str, place: str, x: float = 0.5, size: float = 1.0) -> Callable[[Rng], Image.Image]:
    def draw(rng: Rng) -> Image.Image:
        canvas = PLACES[place](rng)
        _put(canvas, figure, color, rng, x, size)
        return canvas

    return draw


def _put(canvas: Image.Image, figure: Figure, color: str, rng: Rng, x: float = 0.5, size: float = 1.0) -> None:
    scale = size * rng.uniform(0.29, 0.37)
    wobble = 0.08 * min(size, 1.0)
    pen = Pen(
        canvas,
        x + rng.uniform(-wobble, wobble),
        0.56 + (0.34 - scale) * 0.5 + rng.uniform(-0.05, 0.05),
        scale,
        bool(rng.random() < 0.5),
    )
    figure(pen, PALETTE[color])


def _figure(name: str) -> Figure:
    return OBJECTS.get(name) or ANIMALS[name]


def _single(rng: Rng, color: str, name: str, places: tuple[str, ...]) -> Motif:
    category = "objects" if name in OBJECTS else "animals"
    place = _pick(rng, places)
    size, word = (1.0, "") if rng.random() < 0.85 else ((0.55, "small ") if rng.random() < 0.5 else (1.28, "big "))
    caption = f"{article(word + color + ' ' + name)} {place}".strip()
    hue = color if color in HUES and place in ("", "on a table") and size >= 1 else ""
    labels = (name, color, place)
    return Motif(category, caption, labels, _placed(_figure(name), color, place, size=size), hue=hue)


def _pair(rng: Rng, first: tuple[str, str], second: tuple[str, str], category: str) -> Motif:
    place = _pick(rng, _GROUNDED)
    a, b = article(" ".join(first)), article(" ".join(second))
    caption = f"{a} {_pick(rng, ('and', 'next to'))} {b} {place}".strip()

    def draw(rng: Rng) -> Image.Image:
        canvas = PLACES[place](rng)
        left = rng.random() < 0.5
        for (color, name), x in zip((first, second), (0.27, 0.73) if left else (0.73, 0.27), strict=True):
            _put(canvas, _figure(name), color, rng, x, 0.68)
        return canvas

    return Motif(category, caption, (*first, *second, place), draw)


def _several(rng: Rng, color: str, name: str, category: str) -> Motif:
    place = _pick(rng, _GROUNDED)
    n = int(rng.integers(2, 4))
    caption = f"{('two', 'three')[n - 2]} {color} {plural(name)} {place}".strip()

    def draw(rng: Rng) -> Image.Image:
        canvas = PLACES[place](rng)
        for k in range(n):
            _put(canvas, _figure(name), color, rng, (k + 0.5) / n, 1.34 / n)
        return canvas

    return Motif(category, caption, (name, color, place), draw)


def objects(rng: Rng) -> Motif:
    color, name = _pick(rng, tuple(PALETTE)), _pick(rng, tuple(OBJECTS))
    kind = rng.random()
    if kind < 0.7:
        walls = tuple(p for p in PLACES if p != "in the sea" and color not in p)
        return _single(rng, color, name, walls if rng.random() < 0.3 else _GROUNDED)
    if kind < 0.87:
        return _pair(rng, (color, name), (_pick(rng, tuple(PALETTE)), _pick(rng, tuple(OBJECTS))), "objects")
    return _several(rng, color, name, "objects")


def animals(rng: Rng) -> Motif:
    name = _pick(rng, tuple(ANIMALS))
    color = _pick(rng, FUR if rng.random() < 0.6 else tuple(PALETTE))
    kind = rng.random()
    if kind < 0.75:
        places = tuple(p for p in PLACES if color not in p) if rng.random() < 0.25 else (*_GROUNDED, "in the sea")
        return _single(rng, color, name, places)
    if kind < 0.88:
        other = (_pick(rng, tuple(PALETTE)), _pick(rng, (*OBJECTS, *ANIMALS)))
        return _pair(rng, (color, name), other, "animals")
    return _several(rng, color, name, "animals")


def people(rng: Rng) -> Motif:
    who, hair, shirt = _pick(rng, PEOPLE), _pick(rng, tuple(HAIR)), _pick(rng, tuple(PALETTE))
    hat = _pick(rng, tuple(PALETTE)) if rng.random() < 0.25 else ""
    glasses = rng.random() < 0.25
    place = _pick(rng, tuple(p for p in PLACES if p not in ("in the sea", "on a table") and shirt not in p))
    says_hair, says_shirt = rng.random() < 0.8, rng.random() < 0.8
    caption = article(who)
    if says_hair:
        caption += f" with {hair} hair"
    if says_shirt:
        caption += f" in {article(shirt)} shirt"
    extras = [f"{article(hat)} hat"] if hat else []
    extras += ["glasses"] if glasses else []
    if extras:
        caption += " wearing " + " and ".join(extras)
    caption = f"{caption} {place}".strip()
    labels = [who, place, *extras]
    labels += [f"{hair} hair"] if says_hair else []
    labels += [f"{shirt} shirt"] if says_shirt else []

    def draw(rng: Rng) -> Image.Image:
        canvas = PLACES[place](rng)
        pen = Pen(canvas, rng.uniform(0.42, 0.58), rng.uniform(0.56, 0.64), rng.uniform(0.36, 0.44))
        shade = HAIR[hair if says_hair else _pick(rng, tuple(HAIR))]
        cloth = PALETTE[shirt if says_shirt else _pick(rng, tuple(PALETTE))]
        skin = SKIN[int(rng.integers(len(SKIN)))]
        person(pen, who, shade, cloth, skin, PALETTE[hat] if hat else None, glasses)
        return canvas

    return Motif("people", caption, tuple(labels), draw)


def scenes(rng: Rng) -> Motif:
    kind, time = _pick(rng, SCENES), _pick(rng, ("", *TIMES))
    caption = f"{article(kind)} {time}".strip()
    labels = [kind, time or "by day"]
    guest: tuple[str, str] | None = None
    if rng.random() < 0.35:
        names = ("boat", "bird") if kind in ("lake", "island", "river") else ("house", "car", "flower", "umbrella")
        guest = _pick(rng, tuple(PALETTE)), _pick(rng, names)
        caption = f"{article(kind)} with {article(' '.join(guest))} {time}".strip()
        labels += guest

    def draw(rng: Rng) -> Image.Image:
        canvas = scene(kind, time, rng)
        if guest:
            pen = Pen(canvas, rng.uniform(0.3, 0.7), rng.uniform(0.66, 0.78), rng.uniform(0.15, 0.2))
            _figure(guest[1])(pen, PALETTE[guest[0]])
        return canvas

    return Motif("scenes", caption, tuple(labels), draw)


def abstract(rng: Rng) -> Motif:
    a, b = (_pick(rng, tuple(PALETTE)) for _ in range(2))
    while b == a:
        b = _pick(rng, tuple(PALETTE))
    kind = rng.random()
    if kind < 0.72:
        name = _pick(rng, tuple(PATTERNS))
        if name in ("stripes", "checks", "dots", "circles", "waves", "rays"):
            caption = f"{a} dots on {b}" if name == "dots" else f"{a} and {b} {name}"
        elif name == "gradient":
            caption = f"a gradient from {a} to {b}"
        else:
            caption = f"{'chaos' if name == 'chaos' else 'a spiral'} in {a} and {b}"
        return Motif("abstract", caption, (name, a, b), lambda rng: PATTERNS[name](PALETTE[a], PALETTE[b], rng))
    thing = _pick(rng, (*OBJECTS, *ANIMALS))
    landscape = kind >= 0.88
    caption = f"{'a landscape' if landscape else 'a pattern'} made of {a} {plural(thing)}"

    def draw(rng: Rng) -> Image.Image:
        ground = scene("field", "", rng) if landscape else graded((240, 238, 232), (232, 228, 220))
        return made_of(_figure(thing), PALETTE[a], ground, rng)

    return Motif("abstract", caption, (thing, a, "landscape" if landscape else "pattern"), draw)


def styles(rng: Rng) -> Motif:
    motif = (objects, animals, scenes, people)[int(rng.choice(4, p=(0.35, 0.3, 0.25, 0.1)))](rng)
    style = _pick(rng, tuple(STYLES))
    caption = f"{article(style)} of {motif.caption}"
    return Motif("styles", caption, (*motif.labels, style), motif.draw, style=style)


_GRAMMARS: dict[str, Callable[[Rng], Motif]] = {
    "people": people,
    "animals": animals,
    "objects": objects,
    "scenes": scenes,
    "styles": styles,
    "abstract": abstract,
}


def sample(rng: Rng, category: str | None = None, held_out: bool | None = False) -> Motif:
    """Return a random motif from the world's grammars.

    Args:
        category: one of `CATEGORIES`; None draws one, with the probabilities in `SHARES`.
        held_out: False for training captions, True for held-out ones, None for both.

    Raises:
        KeyError: an unknown category.
    """
    chosen = category or CATEGORIES[int(rng.choice(len(CATEGORIES), p=SHARES))]
    while True:
        motif = _GRAMMARS[chosen](rng)
        if held_out is None or is_held_out(motif.caption) == held_out:
            return motif


def dead_leaves(rng: Rng) -> np.ndarray:
    """Draw an image with the statistics of a photograph but without meaning, uint8 (64, 64, 3).

    Discs and quadrilaterals occlude each other, their radii distributed as r^-3; shading and grain lie over all of
    them. This is the dead-leaves model of Lee, Mumford & Huang (2001).
    """
    canvas = Image.new("RGB", (64 * OVERSAMPLE, 64 * OVERSAMPLE), (128, 126, 122))
    pen = Pen(canvas)
    base = rng.uniform(40, 200) + rng.normal(0, 18, 3)
    for _ in range(220):
        r = 1 / np.sqrt(1 / 0.03**2 + rng.random() * (1 / 0.9**2 - 1 / 0.03**2))
        color = np.clip(base + rng.normal(0, 55) + rng.normal(0, 22, 3), 0, 255).astype(int).tolist()
        x, y = rng.uniform(-1.2, 1.2, 2)
        if rng.random() < 0.5:
            pen.ellipse(x, y, r, r * rng.uniform(0.5, 1.5), tuple(color))
        else:
            corners = [(x + r * np.cos(t), y + r * np.sin(t)) for t in np.sort(rng.uniform(0, 6.28, 4))]
            pen.polygon(corners, tuple(color))
    pixels = shrink(canvas).astype(np.float32)
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    shade = rng.normal(0, 22, 2)
    grain = rng.normal(0, 1, (64, 64, 1)) * rng.uniform(0, 10)
    return np.clip(pixels + (shade[0] * rows + shade[1] * columns)[..., None] + grain, 0, 255).astype(np.uint8)
