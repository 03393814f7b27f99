"""Backdrops: places for things, and scenes, which are views without a subject."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from raymap.embedded.world.pen import PALETTE, RGB, Pen, blank, dark, light, mix

Rng = np.random.Generator
Place = Callable[[Rng], Image.Image]


def graded(top: RGB, bottom: RGB, horizon: float = 1.0) -> Image.Image:
    """Return a canvas that runs from colour `top` to colour `bottom`, reached at `horizon` (a share of the height)."""
    canvas = blank(bottom)
    pen = Pen(canvas)
    steps = 40
    for k in range(steps):
        y0 = -1 + 2 * horizon * k / steps
        pen.rect(-1, y0, 1, y0 + 2 * horizon / steps + 0.02, mix(top, bottom, k / (steps - 1)))
    return canvas


def _ground(top: RGB, sky: RGB, ground: RGB, horizon: float) -> tuple[Image.Image, Pen]:
    canvas = graded(top, sky, horizon)
    pen = Pen(canvas)
    y = 2 * horizon - 1
    pen.rect(-1, y, 1, 1, ground)
    pen.rect(-1, y + 0.55 * (1 - y), 1, 1, dark(ground, 0.07))
    return canvas, pen


def nowhere(rng: Rng) -> Image.Image:
    tone = int(rng.integers(222, 246))
    return graded((tone, tone, tone - 4), (tone - 16, tone - 16, tone - 18))


def on_a_table(rng: Rng) -> Image.Image:
    canvas, pen = _ground((236, 232, 224), (226, 221, 212), (205, 186, 158), rng.uniform(0.62, 0.7))
    pen.rect(-1, 0.92, 1, 1, (176, 158, 132))
    return canvas


def on_grass(rng: Rng) -> Image.Image:
    canvas, pen = _ground((165, 208, 240), (214, 234, 246), (116, 176, 84), rng.uniform(0.5, 0.62))
    for _ in range(26):
        x, y = rng.uniform(-1, 1), rng.uniform(0.35, 1)
        pen.line([(x, y), (x + 0.03, y - 0.1)], (84, 146, 62), 0.025)
    return canvas


def on_snow(rng: Rng) -> Image.Image:
    canvas, pen = _ground((150, 176, 206), (196, 212, 230), (240, 245, 250), rng.uniform(0.5, 0.62))
    for _ in range(34):
        pen.ellipse(rng.uniform(-1, 1), rng.uniform(-1, 0.6), 0.025, 0.025, (255, 255, 255))
    return canvas


def on_the_beach(rng: Rng) -> Image.Image:
    horizon = rng.uniform(0.4, 0.46)
    canvas, pen = _ground((150, 205, 242), (210, 235, 248), (62, 148, 190), horizon)
    pen.rect(-1, 0.22, 1, 1, (236, 214, 164))
    pen.rect(-1, 0.18, 1, 0.25, (240, 248, 250))
    return canvas


def in_the_sea(rng: Rng) -> Image.Image:
    canvas = graded((86, 178, 216), (18, 84, 150))
    pen = Pen(canvas)
    for _ in range(9):
        r = rng.uniform(0.03, 0.07)
        pen.ring(rng.uniform(-1, 1), rng.uniform(-1, 0.8), r, r, (200, 234, 246), 0.02)
    return canvas


def in_a_room(rng: Rng) -> Image.Image:
    canvas, pen = _ground((222, 206, 214), (214, 196, 204), (150, 118, 96), rng.uniform(0.66, 0.72))
    pen.rect(-0.9, -0.85, -0.4, -0.2, (250, 250, 250))
    pen.rect(-0.85, -0.8, -0.45, -0.25, (172, 212, 240))
    return canvas


def on_a_street(rng: Rng) -> Image.Image:
    canvas, pen = _ground((188, 206, 222), (214, 222, 230), (122, 124, 130), 0.66)
    x = -1.0
    while x < 1:
        width = rng.uniform(0.3, 0.5)
        tone = int(rng.integers(150, 196))
        pen.rect(x, rng.uniform(-0.8, -0.1), x + width, 0.32, (tone, tone - 8, tone - 14))
        x += width
    for k in range(4):
        pen.rect(-0.95 + 0.55 * k, 0.72, -0.65 + 0.55 * k, 0.78, (236, 232, 214))
    return canvas


def at_night(rng: Rng) -> Image.Image:
    canvas, pen = _ground((14, 16, 46), (36, 40, 86), (26, 34, 40), rng.uniform(0.66, 0.74))
    for _ in range(22):
        r = rng.uniform(0.012, 0.026)
        pen.ellipse(rng.uniform(-1, 1), rng.uniform(-1, 0.25), r, r, (250, 246, 214))
    pen.ellipse(rng.uniform(0.45, 0.75), -0.72, 0.16, 0.16, (246, 240, 206))
    return canvas


def wall(color: RGB) -> Place:
    """Return a place that is nothing but a wall of `color`."""

    def place(rng: Rng) -> Image.Image:
        return graded(light(color, 0.12), dark(color, 0.06))

    return place


PLACES: dict[str, Place] = {
    "": nowhere,
    "on a table": on_a_table,
    "on grass": on_grass,
    "on snow": on_snow,
    "on the beach": on_the_beach,
    "in the sea": in_the_sea,
    "in a room": in_a_room,
    "on a street": on_a_street,
    "at night": at_night,
    **{
        f"in front of {'an' if name[0] in 'aeiou' else 'a'} {name} wall": wall(color) for name, color in PALETTE.items()
    },
}

TIMES: dict[str, tuple[RGB, RGB, float]] = {
    "": ((104, 176, 236), (206, 232, 246), 0.0),
    "at sunset": ((120, 70, 140), (250, 150, 70), 0.28),
    "at night": ((12, 14, 42), (38, 42, 92), 0.66),
    "in the fog": ((196, 202, 206), (214, 218, 220), 0.0),
    "in winter": ((172, 192, 214), (222, 230, 240), 0.0),
}
"""Name -> (colour at the top of the sky, colour at its foot, how much the ground is darkened, 0 to 1)."""

SCENES = ("beach", "mountain", "forest", "city", "desert", "field", "lake", "road", "island", "river")


def scene(kind: str, time: str, rng: Rng) -> Image.Image:
    """Draw a view of `kind` at `time`.

    Raises:
        KeyError: a kind that is not in `SCENES`, or a time that is not in `TIMES`.
    """
    top, foot, gloom = TIMES[time]
    canvas = graded(top, foot, 0.6)
    pen = Pen(canvas)

    def tint(color: RGB) -> RGB:
        if time == "in winter":
            color = mix(color, (244, 247, 252), 0.68)
        if time == "in the fog":
            color = mix(color, (206, 210, 212), 0.6)
        return mix(color, (16, 14, 40), gloom)

    x = rng.uniform(-0.7, 0.7)
    if time == "at night":
        for _ in range(24):
            pen.ellipse(rng.uniform(-1, 1), rng.uniform(-1, 0), 0.018, 0.018, (250, 246, 214))
        pen.ellipse(x, -0.66, 0.16, 0.16, (246, 240, 206))
    elif time == "at sunset":
        pen.ellipse(x * 0.6, 0.08, 0.24, 0.24, (255, 226, 120))
    elif time == "":
        pen.ellipse(x, -0.7, 0.16, 0.16, (255, 236, 130))
    _LANDS[kind](pen, tint, rng)
    return canvas


Tint = Callable[[RGB], RGB]
GRASS: RGB = (104, 168, 76)
WATER: RGB = (52, 128, 190)
SAND: RGB = (236, 212, 160)


def _beach(p: Pen, t: Tint, rng: Rng) -> None:
    p.rect(-1, 0.0, 1, 1, t(WATER))
    p.rect(-1, 0.12, 1, 0.16, t(light(WATER, 0.3)))
    p.polygon([(-1, 0.42), (1, 0.3), (1, 1), (-1, 1)], t(SAND))
    p.line([(-1, 0.42), (1, 0.3)], t((244, 250, 250)), 0.07)
    x = rng.uniform(-0.7, 0.7)
    p.line([(x, 0.7), (x + 0.08, 0.1), (x + 0.2, -0.3)], t((120, 84, 50)), 0.08)
    for dx, dy in ((-0.38, 0.08), (-0.22, -0.2), (0.3, -0.2), (0.4, 0.1)):
        p.line([(x + 0.2, -0.3), (x + 0.2 + dx, -0.3 + dy)], t((50, 130, 60)), 0.11)


def _mountain(p: Pen, t: Tint, rng: Rng) -> None:
    for k, x in enumerate(rng.permutation([-0.6, 0.5, 0.0])):
        h, w = rng.uniform(0.75, 1.1), 0.72
        rock = t(dark((128, 124, 140), 0.12 * k))
        p.polygon([(x - w, 0.45), (x, 0.4 - h), (x + w, 0.45)], rock)
        p.polygon([(x - w * 0.24, 0.4 - h * 0.7), (x, 0.4 - h), (x + w * 0.24, 0.4 - h * 0.7)], t((248, 250, 252)))
    p.rect(-1, 0.4, 1, 1, t(GRASS))


def _tree(p: Pen, t: Tint, x: float, y: float, s: float) -> None:
    p.rect(x - 0.05 * s, y - 0.3 * s, x + 0.05 * s, y, t((104, 74, 48)))
    for k in range(3):
        w = (0.36 - 0.08 * k) * s
        top = y - (0.7 + 0.3 * k) * s
        p.polygon([(x - w, top + 0.5 * s), (x, top), (x + w, top + 0.5 * s)], t(dark((44, 122, 62), 0.08 * k)))


def _forest(p: Pen, t: Tint, rng: Rng) -> None:
    p.rect(-1, 0.2, 1, 1, t((86, 140, 66)))
    for y in (0.35, 0.6, 0.9):
        for x in np.linspace(-0.9, 0.9, 5) + rng.uniform(-0.14, 0.14, 5):
            _tree(p, t, float(x), y, 0.9 + 0.35 * y)


def _city(p: Pen, t: Tint, rng: Rng) -> None:
    x = -1.0
    while x < 1:
        w, top = rng.uniform(0.22, 0.38), rng.uniform(-0.7, 0.1)
        tone = int(rng.integers(96, 160))
        p.rect(x, top, x + w, 0.75, t((tone, tone, tone + 12)))
        for wy in np.arange(top + 0.1, 0.6, 0.16):
            for wx in np.arange(x + 0.05, x + w - 0.06, 0.1):
                if rng.random() < 0.7:
                    p.rect(wx, wy, wx + 0.05, wy + 0.08, (252, 232, 150))
        x += w + 0.02
    p.rect(-1, 0.72, 1, 1, t((96, 98, 104)))


def _desert(p: Pen, t: Tint, rng: Rng) -> None:
    p.rect(-1, 0.2, 1, 1, t((232, 190, 116)))
    p.ellipse(-0.5, 0.75, 1.0, 0.5, t((216, 170, 96)))
    p.ellipse(0.7, 0.9, 0.9, 0.5, t((224, 180, 106)))
    x = rng.uniform(-0.6, 0.6)
    cactus = t((60, 130, 70))
    p.rect(x - 0.08, -0.25, x + 0.08, 0.6, cactus, 0.08)
    p.line([(x, 0.2), (x - 0.25, 0.2), (x - 0.25, -0.1)], cactus, 0.1)
    p.line([(x, 0.1), (x + 0.25, 0.1), (x + 0.25, -0.2)], cactus, 0.1)


def _field(p: Pen, t: Tint, rng: Rng) -> None:
    p.rect(-1, 0.1, 1, 1, t(GRASS))
    colors = [PALETTE[c] for c in ("red", "yellow", "purple", "white", "pink")]
    for _ in range(70):
        y = rng.uniform(0.16, 1)
        r = 0.02 + 0.04 * y
        p.ellipse(rng.uniform(-1, 1), y, r, r, t(colors[int(rng.integers(5))]))


def _lake(p: Pen, t: Tint, rng: Rng) -> None:
    p.rect(-1, 0.05, 1, 1, t((82, 140, 76)))
    for x in np.linspace(-0.9, 0.9, 6) + rng.uniform(-0.1, 0.1, 6):
        _tree(p, t, float(x), 0.15, 0.55)
    p.ellipse(0, 0.62, 0.92, 0.42, t(WATER))
    p.ellipse(0.1, 0.52, 0.5, 0.1, t(light(WATER, 0.35)))


def _road(p: Pen, t: Tint, rng: Rng) -> None:
    p.rect(-1, 0.1, 1, 1, t(GRASS))
    x = rng.uniform(-0.25, 0.25)
    p.polygon([(x - 0.06, 0.1), (x + 0.06, 0.1), (0.75, 1), (-0.75, 1)], t((94, 96, 102)))
    for k in range(4):
        y = 0.2 + 0.21 * k
        c = x * (1 - (y - 0.1) / 0.9)
        p.rect(c - 0.02 - 0.02 * k, y, c + 0.02 + 0.02 * k, y + 0.1, t((244, 240, 220)))


def _island(p: Pen, t: Tint, rng: Rng) -> None:
    p.rect(-1, 0.05, 1, 1, t(WATER))
    x = rng.uniform(-0.3, 0.3)
    p.pie(x, 0.5, 0.68, 0.5, 180, 360, t(SAND))
    p.pie(x, 0.4, 0.46, 0.45, 180, 360, t((84, 150, 70)))
    for dx in (-0.2, 0.12):
        _tree(p, t, x + dx, 0.1, 0.5)
    for _ in range(6):
        wx, wy = rng.uniform(-1, 0.8), rng.uniform(0.6, 0.95)
        p.line([(wx, wy), (wx + 0.18, wy)], t(light(WATER, 0.4)), 0.03)


def _river(p: Pen, t: Tint, rng: Rng) -> None:
    p.ellipse(-0.6, 0.35, 0.9, 0.5, t((94, 150, 80)))
    p.ellipse(0.7, 0.35, 0.9, 0.45, t((110, 166, 88)))
    p.rect(-1, 0.3, 1, 1, t(GRASS))
    s = 1 if rng.random() < 0.5 else -1
    bed = [(0.02 * s, 0.15), (0.25 * s, 0.35), (-0.15 * s, 0.55), (-0.5 * s, 1.0)]
    far = [(0.45 * s, 1.0), (0.3 * s, 0.6), (0.45 * s, 0.35), (0.1 * s, 0.15)]
    p.polygon(bed + far, t(WATER))


_LANDS: dict[str, Callable[[Pen, Tint, Rng], None]] = {
    "beach": _beach,
    "mountain": _mountain,
    "forest": _forest,
    "city": _city,
    "desert": _desert,
    "field": _field,
    "lake": _lake,
    "road": _road,
    "island": _island,
    "river": _river,
}
