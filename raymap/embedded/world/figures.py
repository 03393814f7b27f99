"""The world's figures: objects, animals and people, each drawn in the unit box of a pen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raymap.embedded.world.pen import PALETTE, RGB, Pen, dark, light

Figure = Callable[[Pen, RGB], None]

INK: RGB = (32, 30, 34)
PAPER: RGB = (246, 242, 232)


def cup(p: Pen, c: RGB) -> None:
    p.ring(0.62, -0.02, 0.36, 0.4, dark(c, 0.15), 0.16)
    p.polygon([(-0.75, -0.7), (0.65, -0.7), (0.5, 0.85), (-0.6, 0.85)], c)
    p.polygon([(0.3, -0.7), (0.65, -0.7), (0.5, 0.85), (0.25, 0.85)], dark(c, 0.2))
    p.ellipse(-0.05, -0.7, 0.7, 0.2, dark(c, 0.45))


def ball(p: Pen, c: RGB) -> None:
    p.ellipse(0, 0, 0.9, 0.9, dark(c, 0.22))
    p.ellipse(-0.1, -0.1, 0.76, 0.76, c)
    p.ellipse(-0.32, -0.38, 0.22, 0.18, light(c, 0.65))


def box(p: Pen, c: RGB) -> None:
    p.polygon([(-0.9, -0.35), (-0.35, -0.8), (0.9, -0.8), (0.45, -0.35)], light(c, 0.3))
    p.polygon([(0.45, -0.35), (0.9, -0.8), (0.9, 0.45), (0.45, 0.9)], dark(c, 0.35))
    p.rect(-0.9, -0.35, 0.45, 0.9, c)


def book(p: Pen, c: RGB) -> None:
    p.rect(-0.7, -0.9, 0.75, 0.9, dark(c, 0.3), 0.06)
    p.rect(-0.55, -0.82, 0.72, 0.82, PAPER)
    p.rect(-0.7, -0.9, 0.6, 0.84, c, 0.06)
    p.rect(-0.35, -0.6, 0.35, -0.3, PAPER)
    p.rect(-0.7, -0.9, -0.52, 0.84, dark(c, 0.25))


def lamp(p: Pen, c: RGB) -> None:
    p.rect(-0.07, -0.1, 0.07, 0.8, (110, 105, 100))
    p.ellipse(0, 0.85, 0.45, 0.13, (110, 105, 100))
    p.polygon([(-0.4, -0.95), (0.4, -0.95), (0.85, 0.05), (-0.85, 0.05)], c)
    p.ellipse(0, 0.05, 0.85, 0.12, light(c, 0.55))


def chair(p: Pen, c: RGB) -> None:
    p.rect(-0.6, -0.95, 0.6, 0.05, c, 0.12)
    p.rect(-0.35, -0.7, -0.15, 0.05, dark(c, 0.3))
    p.rect(0.15, -0.7, 0.35, 0.05, dark(c, 0.3))
    for x in (-0.62, 0.46):
        p.rect(x, 0.2, x + 0.16, 0.95, dark(c, 0.35))
    p.polygon([(-0.6, 0.05), (0.6, 0.05), (0.78, 0.35), (-0.78, 0.35)], light(c, 0.15))


def car(p: Pen, c: RGB) -> None:
    p.polygon([(-0.55, -0.1), (-0.35, -0.55), (0.35, -0.55), (0.6, -0.1)], dark(c, 0.15))
    p.polygon([(-0.42, -0.1), (-0.28, -0.45), (0.0, -0.45), (0.0, -0.1)], (190, 222, 235))
    p.polygon([(0.08, -0.1), (0.08, -0.45), (0.3, -0.45), (0.46, -0.1)], (190, 222, 235))
    p.rect(-0.98, -0.12, 0.98, 0.4, c, 0.14)
    p.ellipse(0.88, 0.08, 0.08, 0.09, (255, 240, 170))
    for x in (-0.52, 0.52):
        p.ellipse(x, 0.4, 0.26, 0.26, INK)
        p.ellipse(x, 0.4, 0.11, 0.11, (180, 180, 184))


def clock(p: Pen, c: RGB) -> None:
    p.ellipse(0, 0, 0.92, 0.92, c)
    p.ellipse(0, 0, 0.66, 0.66, PAPER)
    p.line([(0, 0), (0, -0.5)], INK, 0.1)
    p.line([(0, 0), (0.36, 0.16)], INK, 0.1)
    p.ellipse(0, 0, 0.08, 0.08, INK)


def vase(p: Pen, c: RGB) -> None:
    p.rect(-0.28, -0.9, 0.28, -0.3, dark(c, 0.12))
    p.ellipse(0, 0.25, 0.68, 0.68, c)
    p.ellipse(0, -0.9, 0.36, 0.11, dark(c, 0.5))
    p.ellipse(-0.25, 0.05, 0.14, 0.26, light(c, 0.5))
    p.rect(-0.4, 0.82, 0.4, 0.94, dark(c, 0.3))


def backpack(p: Pen, c: RGB) -> None:
    p.ring(0, -0.75, 0.25, 0.22, dark(c, 0.4), 0.1)
    p.rect(-0.72, -0.72, 0.72, 0.92, c, 0.4)
    p.rect(-0.92, 0.0, -0.6, 0.75, dark(c, 0.25), 0.12)
    p.rect(0.6, 0.0, 0.92, 0.75, dark(c, 0.25), 0.12)
    p.rect(-0.48, 0.12, 0.48, 0.74, dark(c, 0.2), 0.12)
    p.line([(-0.48, 0.28), (0.48, 0.28)], light(c, 0.5), 0.07)


def teapot(p: Pen, c: RGB) -> None:
    p.ring(-0.68, 0.1, 0.3, 0.36, dark(c, 0.2), 0.13)
    p.polygon([(0.4, 0.35), (0.98, -0.4), (0.82, -0.48), (0.3, -0.05)], dark(c, 0.15))
    p.ellipse(0, 0.2, 0.68, 0.62, c)
    p.pie(0, -0.3, 0.42, 0.25, 180, 360, dark(c, 0.25))
    p.ellipse(0, -0.6, 0.11, 0.11, dark(c, 0.3))
    p.ellipse(-0.25, 0.0, 0.15, 0.2, light(c, 0.5))


def umbrella(p: Pen, c: RGB) -> None:
    p.line([(0, -0.5), (0, 0.8), (0.12, 0.92), (0.28, 0.8)], (95, 70, 50), 0.09)
    p.pie(0, 0.05, 0.97, 0.95, 180, 360, c)
    p.pie(0, 0.05, 0.38, 0.95, 180, 360, dark(c, 0.22))


def bottle(p: Pen, c: RGB) -> None:
    p.rect(-0.17, -0.95, 0.17, -0.3, dark(c, 0.15))
    p.rect(-0.22, -0.98, 0.22, -0.8, dark(c, 0.5))
    p.rect(-0.48, -0.4, 0.48, 0.95, c, 0.22)
    p.rect(-0.48, 0.12, 0.48, 0.55, PAPER)
    p.rect(-0.38, -0.3, -0.22, 0.05, light(c, 0.5))


def shoe(p: Pen, c: RGB) -> None:
    p.polygon([(-0.85, -0.55), (-0.25, -0.55), (0.1, -0.05), (0.75, 0.1), (0.95, 0.45), (-0.85, 0.45)], c)
    p.rect(-0.92, 0.4, 0.98, 0.62, PAPER, 0.08)
    p.ellipse(-0.55, -0.55, 0.3, 0.1, dark(c, 0.5))
    for i in range(3):
        p.line([(-0.16 + 0.17 * i, -0.34 + 0.14 * i), (-0.34 + 0.17 * i, -0.16 + 0.14 * i)], PAPER, 0.08)


def mushroom(p: Pen, c: RGB) -> None:
    p.rect(-0.25, -0.1, 0.25, 0.92, PAPER, 0.15)
    p.pie(0, 0.05, 0.95, 0.95, 180, 360, c)
    for x, y, r in ((-0.45, -0.3, 0.15), (0.1, -0.55, 0.17), (0.52, -0.2, 0.12)):
        p.ellipse(x, y, r, r, light(c, 0.75))


def house(p: Pen, c: RGB) -> None:
    p.rect(-0.72, -0.15, 0.72, 0.92, c)
    p.polygon([(-0.98, -0.1), (0, -0.95), (0.98, -0.1)], dark(c, 0.45))
    p.rect(-0.15, 0.35, 0.2, 0.92, dark(c, 0.6))
    for x in (-0.55, 0.35):
        p.rect(x, 0.08, x + 0.25, 0.33, (255, 240, 170))


def boat(p: Pen, c: RGB) -> None:
    p.polygon([(-0.95, 0.3), (0.95, 0.3), (0.6, 0.8), (-0.6, 0.8)], c)
    p.rect(-0.05, -0.9, 0.05, 0.3, (95, 70, 50))
    p.polygon([(0.1, -0.85), (0.75, 0.18), (0.1, 0.18)], PAPER)
    p.polygon([(-0.1, -0.6), (-0.6, 0.18), (-0.1, 0.18)], light(c, 0.5))


def flower(p: Pen, c: RGB) -> None:
    p.rect(-0.06, 0.0, 0.06, 0.95, (60, 140, 70))
    p.ellipse(0.25, 0.6, 0.22, 0.1, (60, 140, 70))
    for k in range(6):
        a = np.pi * k / 3
        p.ellipse(0.42 * np.cos(a), -0.35 + 0.42 * np.sin(a), 0.28, 0.28, c)
    p.ellipse(0, -0.35, 0.24, 0.24, (250, 215, 90) if c != PALETTE["yellow"] else (150, 90, 40))


def cat(p: Pen, c: RGB) -> None:
    p.line([(0.5, 0.8), (0.85, 0.5), (0.75, 0.1)], dark(c, 0.15), 0.16)
    p.ellipse(0.05, 0.5, 0.55, 0.5, c)
    p.polygon([(-0.62, -0.35), (-0.55, -0.98), (-0.1, -0.62)], c)
    p.polygon([(0.52, -0.35), (0.45, -0.98), (0.0, -0.62)], c)
    p.ellipse(-0.05, -0.3, 0.6, 0.48, light(c, 0.08))
    for x in (-0.28, 0.18):
        p.ellipse(x, -0.36, 0.1, 0.12, (235, 225, 90))
        p.ellipse(x, -0.36, 0.05, 0.1, INK)
    p.polygon([(-0.13, -0.18), (0.03, -0.18), (-0.05, -0.08)], (235, 130, 140))


def dog(p: Pen, c: RGB) -> None:
    p.line([(-0.7, 0.0), (-0.95, -0.35)], c, 0.14)
    p.rect(-0.78, -0.15, 0.5, 0.42, c, 0.25)
    for x in (-0.7, -0.42, 0.1, 0.34):
        p.rect(x, 0.25, x + 0.17, 0.92, dark(c, 0.12))
    p.ellipse(0.5, -0.35, 0.38, 0.36, c)
    p.ellipse(0.8, -0.22, 0.2, 0.16, light(c, 0.25))
    p.ellipse(0.93, -0.27, 0.08, 0.07, INK)
    p.ellipse(0.3, -0.3, 0.15, 0.33, dark(c, 0.4))
    p.ellipse(0.6, -0.44, 0.07, 0.07, INK)


def bird(p: Pen, c: RGB) -> None:
    p.line([(-0.05, 0.5), (-0.05, 0.92)], (230, 150, 50), 0.08)
    p.line([(0.2, 0.5), (0.2, 0.92)], (230, 150, 50), 0.08)
    p.polygon([(-0.5, 0.1), (-0.98, 0.4), (-0.9, 0.0)], dark(c, 0.3))
    p.ellipse(0, 0.15, 0.62, 0.48, c)
    p.ellipse(0.45, -0.4, 0.36, 0.34, c)
    p.polygon([(0.75, -0.48), (1.0, -0.34), (0.75, -0.25)], (240, 160, 50))
    p.ellipse(-0.12, 0.12, 0.4, 0.25, dark(c, 0.3))
    p.ellipse(0.52, -0.46, 0.08, 0.08, INK)


def fish(p: Pen, c: RGB) -> None:
    p.polygon([(-0.45, 0.0), (-0.98, -0.5), (-0.98, 0.5)], dark(c, 0.25))
    p.polygon([(-0.2, -0.4), (0.1, -0.8), (0.35, -0.35)], dark(c, 0.2))
    p.ellipse(0.15, 0, 0.75, 0.5, c)
    p.ellipse(-0.02, 0.05, 0.18, 0.22, dark(c, 0.2))
    p.ellipse(0.56, -0.12, 0.13, 0.13, PAPER)
    p.ellipse(0.59, -0.12, 0.07, 0.07, INK)


def rabbit(p: Pen, c: RGB) -> None:
    for x in (-0.26, 0.2):
        p.ellipse(x, -0.62, 0.15, 0.38, c)
        p.ellipse(x, -0.6, 0.07, 0.26, (245, 180, 185))
    p.ellipse(0, 0.55, 0.52, 0.42, c)
    p.ellipse(0.52, 0.62, 0.16, 0.16, light(c, 0.6))
    p.ellipse(-0.03, -0.08, 0.45, 0.4, light(c, 0.1))
    for x in (-0.2, 0.14):
        p.ellipse(x, -0.14, 0.08, 0.09, INK)
    p.ellipse(-0.03, 0.02, 0.07, 0.05, (235, 120, 140))


def bear(p: Pen, c: RGB) -> None:
    for x in (-0.48, 0.48):
        p.ellipse(x, -0.72, 0.24, 0.24, dark(c, 0.12))
    p.ellipse(0, 0.55, 0.72, 0.5, dark(c, 0.1))
    p.ellipse(0, -0.3, 0.64, 0.58, c)
    p.ellipse(0, -0.08, 0.3, 0.24, light(c, 0.55))
    p.ellipse(0, -0.18, 0.12, 0.09, INK)
    for x in (-0.25, 0.25):
        p.ellipse(x, -0.42, 0.08, 0.09, INK)


def turtle(p: Pen, c: RGB) -> None:
    skin = (125, 165, 95)
    p.ellipse(0.78, 0.12, 0.22, 0.19, skin)
    for x in (-0.5, 0.35):
        p.rect(x, 0.3, x + 0.24, 0.72, skin, 0.08)
    p.pie(0, 0.38, 0.78, 0.95, 180, 360, c)
    for x in (-0.35, 0.05, 0.42):
        p.ellipse(x, 0.02, 0.13, 0.16, dark(c, 0.35))
    p.ellipse(0.84, 0.07, 0.05, 0.05, INK)


def butterfly(p: Pen, c: RGB) -> None:
    for s in (-1, 1):
        p.ellipse(0.48 * s, -0.35, 0.46, 0.48, c)
        p.ellipse(0.38 * s, 0.42, 0.34, 0.38, dark(c, 0.18))
        p.ellipse(0.52 * s, -0.38, 0.18, 0.2, light(c, 0.6))
        p.line([(0, -0.55), (0.22 * s, -0.95)], INK, 0.05)
    p.ellipse(0, 0, 0.1, 0.66, INK)


def frog(p: Pen, c: RGB) -> None:
    for s in (-1, 1):
        p.ellipse(0.66 * s, 0.5, 0.3, 0.36, dark(c, 0.2))
        p.ellipse(0.4 * s, -0.5, 0.26, 0.26, c)
        p.ellipse(0.4 * s, -0.55, 0.15, 0.15, PAPER)
        p.ellipse(0.4 * s, -0.55, 0.08, 0.08, INK)
    p.ellipse(0, 0.1, 0.72, 0.68, c)
    p.ellipse(0, 0.42, 0.42, 0.32, light(c, 0.5))
    p.line([(-0.4, 0.0), (0, 0.12), (0.4, 0.0)], dark(c, 0.6), 0.07)


def penguin(p: Pen, c: RGB) -> None:
    for s in (-1, 1):
        p.ellipse(0.3 * s, 0.92, 0.22, 0.08, (240, 160, 50))
        p.ellipse(0.58 * s, 0.2, 0.14, 0.42, dark(c, 0.25))
        p.ellipse(0, 0.2, 0.56, 0.72, c)
    p.ellipse(0, 0.35, 0.36, 0.52, PAPER)
    p.ellipse(0, -0.55, 0.38, 0.36, c)
    for x in (-0.15, 0.15):
        p.ellipse(x, -0.62, 0.1, 0.1, PAPER)
        p.ellipse(x, -0.62, 0.05, 0.05, INK)
    p.polygon([(-0.12, -0.5), (0.12, -0.5), (0, -0.3)], (240, 160, 50))


OBJECTS: dict[str, Figure] = {
    f.__name__: f
    for f in (
        cup, ball, box, book, lamp, chair, car, clock, vase, backpack, teapot, umbrella, bottle, shoe,
        mushroom, house, boat, flower,
    )
}  # fmt: skip
ANIMALS: dict[str, Figure] = {
    f.__name__: f for f in (cat, dog, bird, fish, rabbit, bear, turtle, butterfly, frog, penguin)
}
PEOPLE = ("man", "woman", "boy", "girl")
HAIR: dict[str, RGB] = {
    "blond": (236, 205, 110),
    "black": (34, 30, 32),
    "brown": (110, 68, 36),
    "red": (196, 78, 36),
    "gray": (176, 176, 180),
}
SKIN: tuple[RGB, ...] = ((255, 222, 196), (241, 194, 150), (205, 148, 104), (150, 98, 66), (98, 62, 42))


def person(p: Pen, who: str, hair: RGB, shirt: RGB, skin: RGB, hat: RGB | None = None, glasses: bool = False) -> None:
    """Draw a person from the chest up; children are smaller, women and girls have long hair."""
    small = 0.12 if who in ("boy", "girl") else 0.0
    y = -0.25 + small
    r = 0.46 - small * 0.4
    if who in ("woman", "girl"):
        p.rect(-r - 0.14, y - 0.2, r + 0.14, y + 0.78, hair, 0.2)
    width = 0.86 if who == "man" else 0.72 - small
    p.rect(-width, y + 0.68, width, 1.6, shirt, 0.35)
    p.rect(-0.16, y + 0.3, 0.16, y + 0.78, dark(skin, 0.12))
    p.ellipse(0, y, r, r * 1.12, skin)
    p.pie(0, y - 0.06, r * 1.1, r * 1.18, 188, 352, hair)
    if who == "man" and hat is None:
        p.rect(-r * 1.05, y - 0.2, -r * 0.85, y + 0.1, hair)
        p.rect(r * 0.85, y - 0.2, r * 1.05, y + 0.1, hair)
    for s in (-1, 1):
        p.ellipse(0.18 * s, y + 0.02, 0.06, 0.07, INK)
        if glasses:
            p.ring(0.19 * s, y + 0.02, 0.17, 0.16, INK, 0.06)
    p.line([(-0.14, y + 0.27), (0, y + 0.31), (0.14, y + 0.27)], (170, 60, 60), 0.06)
    if hat is not None:
        p.rect(-r * 0.85, y - 0.86, r * 0.85, y - 0.32, hat, 0.1)
        p.rect(-r * 1.45, y - 0.42, r * 1.45, y - 0.27, dark(hat, 0.2), 0.06)
