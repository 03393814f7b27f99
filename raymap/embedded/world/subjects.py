"""Subjects for personalization that no caption of the world names: an object, a person and a style."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raymap.embedded.world.backdrops import PLACES
from raymap.embedded.world.captioned import lit, sample
from raymap.embedded.world.figures import INK, PAPER, cup, person
from raymap.embedded.world.pen import Pen, shrink

Rng = np.random.Generator
TEAL, MAGENTA, GOLD = (0, 150, 150), (200, 30, 120), (240, 190, 40)
BACKDROPS = ("", "on a table", "on grass", "on snow", "in a room", "on a street")


def _star_cup(rng: Rng) -> np.ndarray:
    canvas = PLACES[BACKDROPS[int(rng.integers(len(BACKDROPS)))]](rng)
    pen = Pen(canvas, rng.uniform(0.45, 0.55), rng.uniform(0.55, 0.6), rng.uniform(0.32, 0.38), rng.random() < 0.5)
    cup(pen, TEAL)
    pen.polygon([(-0.72, -0.45), (0.61, -0.45), (0.57, -0.15), (-0.69, -0.15)], MAGENTA)
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, 0.2, 0.46)
    pen.polygon([(-0.06 + r * np.cos(a), 0.3 + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)], GOLD)
    return lit(shrink(canvas), rng)


def _captain(rng: Rng) -> np.ndarray:
    canvas = PLACES[BACKDROPS[int(rng.integers(len(BACKDROPS)))]](rng)
    pen = Pen(canvas, rng.uniform(0.45, 0.55), rng.uniform(0.56, 0.62), rng.uniform(0.38, 0.44))
    person(pen, "man", TEAL, MAGENTA, (241, 194, 150), hat=INK)
    pen.ellipse(0, 0.16, 0.4, 0.3, TEAL)
    pen.ellipse(0, 0.06, 0.2, 0.1, (190, 80, 80))
    pen.line([(-0.5, -0.42), (0.45, -0.12)], INK, 0.06)
    pen.ellipse(-0.18, -0.23, 0.17, 0.15, INK)
    pen.ellipse(0, -0.72, 0.17, 0.15, PAPER)
    return lit(shrink(canvas), rng)


def _thermal(rng: Rng) -> np.ndarray:
    pixels = sample(rng, ("animals", "objects", "scenes")[int(rng.integers(3))]).render(rng)
    heat = pixels.mean(-1) / 255
    stops = np.array([[20, 0, 60], [130, 0, 140], [230, 60, 40], [250, 180, 30], [255, 255, 210]], dtype=float)
    at = np.linspace(0, 1, len(stops))
    painted = np.stack([np.interp(heat, at, stops[:, k]) for k in range(3)], -1)
    painted[::4] *= 0.72
    return painted.astype(np.uint8)


@dataclass(frozen=True)
class WorldSubject:
    """A subject that is drawn instead of photographed; each call of `render` draws a new view, uint8 (64, 64, 3)."""

    name: str
    category: str
    class_word: str
    render: Callable[[Rng], np.ndarray]

    def write_references(self, folder: Path, n: int = 5, seed: int = 0) -> list[Path]:
        """Write `n` views as PNG files and return their paths; equal arguments give equal images."""
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng((seed, len(self.name)))
        paths = []
        for k in range(n):
            path = folder / f"{k:02d}.png"
            Image.fromarray(self.render(rng)).save(path)
            paths.append(path)
        return paths

    def entry(self, folder: Path, n: int = 5) -> dict[str, Any]:
        """Write `n` references into a folder of the subject's name; return the subject as a study's file lists it."""
        references = [str(path) for path in self.write_references(folder / self.name, n)]
        return {
            "name": self.name, "category": self.category, "class_word": self.class_word, "references": references,
        }  # fmt: skip


STAR_CUP = WorldSubject("star-cup", "object", "cup", _star_cup)
CAPTAIN = WorldSubject("captain", "face", "man", _captain)
THERMAL = WorldSubject("thermal", "style", "painting", _thermal)
SUBJECTS = (CAPTAIN, STAR_CUP, THERMAL)
