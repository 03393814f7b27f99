"""Abstract images: patterns in two colours, and patterns made of figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from raymap.embedded.world.backdrops import graded
from raymap.embedded.world.figures import Figure
from raymap.embedded.world.pen import RGB, Pen, blank, light

Rng = np.random.Generator
Pattern = Callable[[RGB, RGB, Rng], Image.Image]


def stripes(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    canvas = blank(b)
    pen = Pen(canvas)
    step = rng.uniform(0.34, 0.5)
    slope = float(rng.choice([0.0, 0.0, 1.0, -1.0]))
    upright = rng.random() < 0.5
    for start in np.arange(-3 + rng.uniform(0, step), 3, step):
        points = [(start - slope, -1.0), (start + step / 2 - slope, -1.0)]
        points += [(start + step / 2 + slope, 1.0), (start + slope, 1.0)]
        pen.polygon(points if upright else [(y, x) for x, y in points], a)
    return canvas


def checks(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    canvas = blank(b)
    pen = Pen(canvas)
    n = int(rng.integers(4, 7))
    side = 2 / n
    for i in range(n):
        for j in range(n):
            if (i + j) % 2:
                pen.rect(-1 + i * side, -1 + j * side, -1 + (i + 1) * side, -1 + (j + 1) * side, a)
    return canvas


def dots(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    canvas = blank(b)
    pen = Pen(canvas)
    n = int(rng.integers(3, 6))
    for i in range(n):
        for j in range(n):
            pen.ellipse(-1 + (2 * i + 1) / n, -1 + (2 * j + 1) / n, 0.62 / n, 0.62 / n, a)
    return canvas


def circles(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    canvas = blank(b)
    pen = Pen(canvas)
    x, y = rng.uniform(-0.2, 0.2, 2)
    step = rng.uniform(0.16, 0.24)
    for k, r in enumerate(np.arange(1.5, 0.05, -step)):
        pen.ellipse(x, y, r, r, a if k % 2 else b)
    return canvas


def waves(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    canvas = blank(b)
    pen = Pen(canvas)
    xs = np.linspace(-1.1, 1.1, 40)
    phase, freq = rng.uniform(0, 6), rng.uniform(4, 7)
    for y in np.arange(-1.1, 1.2, 0.42):
        ys = y + 0.12 * np.sin(freq * xs + phase)
        pen.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), a, 0.2)
    return canvas


def rays(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    canvas = blank(b)
    pen = Pen(canvas)
    n = int(rng.integers(7, 12))
    turn = rng.uniform(0, 360)
    for k in range(n):
        pen.pie(0, 0, 1.6, 1.6, turn + 360 * k / n, turn + 360 * (k + 0.5) / n, a)
    return canvas


def spiral(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    canvas = blank(b)
    t = np.linspace(0.3, rng.uniform(3.4, 4.2) * 2 * np.pi, 220)
    turn = rng.uniform(0, 2 * np.pi)
    r = t / t[-1] * 1.15
    xs, ys = r * np.cos(t + turn), r * np.sin(t + turn)
    Pen(canvas).line(list(zip(xs.tolist(), ys.tolist(), strict=True)), a, 0.14)
    return canvas


def gradient(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    return graded(a, b)


def chaos(a: RGB, b: RGB, rng: Rng) -> Image.Image:
    canvas = blank(light(b, 0.5))
    pen = Pen(canvas)
    for _ in range(26):
        ends = rng.uniform(-1.2, 1.2, (2, 2)).tolist()
        pen.line([tuple(e) for e in ends], a if rng.random() < 0.5 else b, rng.uniform(0.04, 0.12))
    return canvas


PATTERNS: dict[str, Pattern] = {
    "stripes": stripes,
    "checks": checks,
    "dots": dots,
    "circles": circles,
    "waves": waves,
    "rays": rays,
    "spiral": spiral,
    "gradient": gradient,
    "chaos": chaos,
}


def made_of(figure: Figure, color: RGB, ground: Image.Image, rng: Rng) -> Image.Image:
    """Cover `ground` with a grid of small copies of a figure; return it."""
    n = int(rng.integers(3, 5))
    for i in range(n):
        for j in range(n):
            shift = 0.25 / n if j % 2 else -0.25 / n
            figure(Pen(ground, (i + 0.5) / n + shift * 0.5, (j + 0.5) / n, 0.4 / n), color)
    return ground
