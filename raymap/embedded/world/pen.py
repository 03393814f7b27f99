"""A pen that draws in unit coordinates on an oversampled canvas, and the world's colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
"""Side of the world's images, in pixels."""
OVERSAMPLE = 4

RGB = tuple[int, int, int]
Point = tuple[float, float]

PALETTE: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (245, 130, 32),
    "yellow": (247, 213, 40),
    "green": (46, 160, 67),
    "blue": (37, 92, 210),
    "purple": (128, 60, 180),
    "pink": (247, 120, 180),
    "brown": (125, 75, 35),
    "black": (30, 30, 34),
    "white": (248, 248, 248),
    "gray": (140, 143, 148),
}


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """Return `a` moved towards `b` by `share` (0 gives a, 1 gives b)."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def dark(color: RGB, share: float = 0.35) -> RGB:
    """Return `color` moved towards black."""
    return mix(color, (0, 0, 0), share)


def light(color: RGB, share: float = 0.4) -> RGB:
    """Return `color` moved towards white."""
    return mix(color, (255, 255, 255), share)


def blank(color: RGB) -> Image.Image:
    """Return an oversampled canvas of one colour."""
    return Image.new("RGB", (SIZE * OVERSAMPLE, SIZE * OVERSAMPLE), color)


def shrink(canvas: Image.Image) -> np.ndarray:
    """Average an oversampled canvas down to an image, uint8 (64, 64, 3)."""
    return np.asarray(canvas.reduce(OVERSAMPLE))


class Pen:
    """Draws in a unit box: (-1, -1) is its top left corner, (1, 1) its bottom right corner.

    `x` and `y` give the box's centre and `scale` half its side, as shares of the canvas's side; `flip` mirrors it.
    """

    def __init__(
        self, canvas: Image.Image, x: float = 0.5, y: float = 0.5, scale: float = 0.5, flip: bool = False
    ) -> None:
        self._draw = ImageDraw.Draw(canvas)
        side = canvas.width
        self._cx, self._cy, self._k = x * side, y * side, scale * side
        self._sign = -1.0 if flip else 1.0

    def _at(self, p: Point) -> Point:
        return self._cx + self._sign * p[0] * self._k, self._cy + p[1] * self._k

    def polygon(self, points: Sequence[Point], color: RGB) -> None:
        self._draw.polygon([self._at(p) for p in points], fill=color)

    def _box(self, x: float, y: float, rx: float, ry: float) -> list[float]:
        cx, cy = self._at((x, y))
        return [cx - rx * self._k, cy - ry * self._k, cx + rx * self._k, cy + ry * self._k]

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: RGB) -> None:
        self._draw.ellipse(self._box(x, y, rx, ry), fill=color)

    def ring(self, x: float, y: float, rx: float, ry: float, color: RGB, width: float) -> None:
        self._draw.ellipse(self._box(x, y, rx, ry), outline=color, width=max(1, round(width * self._k)))

    def pie(self, x: float, y: float, rx: float, ry: float, start: float, end: float, color: RGB) -> None:
        """Draw a filled slice; degrees run clockwise from three o'clock, and `flip` does not mirror them."""
        self._draw.pieslice(self._box(x, y, rx, ry), start, end, fill=color)

    def rect(self, x0: float, y0: float, x1: float, y1: float, color: RGB, radius: float = 0.0) -> None:
        (ax, ay), (bx, by) = self._at((x0, y0)), self._at((x1, y1))
        box = [min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)]
        self._draw.rounded_rectangle(box, radius * self._k, fill=color)

    def line(self, points: Iterable[Point], color: RGB, width: float) -> None:
        self._draw.line([self._at(p) for p in points], fill=color, width=max(1, round(width * self._k)), joint="curve")
