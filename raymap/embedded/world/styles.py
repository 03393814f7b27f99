"""Styles: filters that turn an image, uint8 (64, 64, 3), into the same image in a named style."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from scipy import ndimage

from raymap.embedded.world.pen import SIZE

Filter = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _edges(image: Image.Image) -> np.ndarray:
    gray = np.asarray(image.convert("L"), dtype=np.float32)
    return np.hypot(ndimage.sobel(gray, 0), ndimage.sobel(gray, 1))


def _texture(rng: np.random.Generator, sigma: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), sigma, mode="wrap")
    return np.asarray(noise / noise.std())


def watercolor(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pale, soft washes on textured paper with uneven edges."""
    soft = np.asarray(
        Image.fromarray(pixels).filter(ImageFilter.MedianFilter(5)).filter(ImageFilter.GaussianBlur(1.2))
    ).astype(np.float32)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    bend = [rows + 1.3 * _texture(rng, 3), columns + 1.3 * _texture(rng, 3)]
    soft = np.stack([ndimage.map_coordinates(soft[..., k], bend, order=1, mode="nearest") for k in range(3)], -1)
    wash = 0.62 * soft + 0.38 * 255 + 9 * _texture(rng, 1.5)[..., None]
    return np.clip(wash, 0, 255).astype(np.uint8)


def sketch(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dark pencil lines and hatching on white paper."""
    edge = np.clip(_edges(Image.fromarray(pixels)) / 190, 0, 1)
    tone = pixels.mean(-1) / 255
    rows, columns = np.mgrid[:SIZE, :SIZE]
    hatch = ((rows + columns) % 4 < 1) * np.clip(0.62 - tone, 0, 1) * 0.9
    paper = 244 - 205 * np.clip(edge + hatch, 0, 1) + rng.normal(0, 4, (SIZE, SIZE))
    return np.repeat(np.clip(paper, 0, 255).astype(np.uint8)[..., None], 3, -1)


def pixel_art(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blocks of four pixels in few colours."""
    small = Image.fromarray(pixels).resize((SIZE // 4, SIZE // 4), Image.Resampling.BOX)
    return np.asarray(ImageOps.posterize(small, 3).resize((SIZE, SIZE), Image.Resampling.NEAREST))


def pop_art(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Loud flat colours, halftone dots in the light parts, black outlines."""
    image = Image.fromarray(pixels)
    loud = np.asarray(ImageOps.posterize(ImageOps.autocontrast(image), 1)).astype(np.float32)
    loud = np.clip(loud * 1.9, 0, 255)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    dots = np.hypot(rows % 6 - 2.5, columns % 6 - 2.5) < 1.7
    loud[dots & (pixels.mean(-1) > 150)] = (255, 60, 150)
    loud[_edges(image) > 230] = 20
    return loud.astype(np.uint8)


def mosaic(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Small tiles of one colour each, with dark joints between them."""
    tile = 7
    steps = np.arange(tile // 2, SIZE + tile, tile, dtype=float)
    centres = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    centres += rng.uniform(-2.2, 2.2, centres.shape)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    distance = np.hypot(rows[..., None] - centres[:, 0], columns[..., None] - centres[:, 1])
    nearest = np.sort(distance, -1)[..., :2]
    owner = distance.argmin(-1)
    at = np.clip(centres.round().astype(int), 0, SIZE - 1)
    tiles = pixels[at[:, 0], at[:, 1]][owner].copy()
    tiles[nearest[..., 1] - nearest[..., 0] < 1.1] = (52, 50, 54)
    return tiles


def oil(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Thick short strokes of paint in varied colours, all over."""
    canvas = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2))
    source = pixels.astype(np.int32)
    draw = ImageDraw.Draw(canvas)
    slope = rng.uniform(0, np.pi)
    for row, column in rng.integers(0, SIZE, (650, 2)):
        angle = slope + rng.normal(0, 0.5)
        dx, dy = 3.6 * np.cos(angle), 3.6 * np.sin(angle)
        color = np.clip(source[row, column] + rng.normal(0, 26) + rng.normal(0, 10, 3), 0, 255).astype(int)
        draw.line([column - dx, row - dy, column + dx, row + dy], tuple(color.tolist()), 3)
    return np.asarray(canvas)


def neon(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Glowing coloured lines in the dark."""
    edge = np.clip(_edges(Image.fromarray(pixels)) / 170, 0, 1)[..., None]
    hue = pixels.astype(np.float32) - pixels.min(-1, keepdims=True)
    hue = hue / np.maximum(hue.max(-1, keepdims=True), 40) * 190 + 65
    lines = edge * hue
    glow = np.stack([ndimage.gaussian_filter(lines[..., k], 2.2) for k in range(3)], -1)
    return np.clip(lines + 0.9 * glow + np.array([10, 6, 28]), 0, 255).astype(np.uint8)


def woodcut(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black and cream print in carved, wavy lines."""
    tone = ndimage.gaussian_filter(pixels.mean(-1), 0.8) / 255
    rows, columns = np.mgrid[:SIZE, :SIZE]
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (rows + 1.5 * np.sin(columns / 7)) / 5)
    ink = (tone < 0.18 + 0.62 * wave) | (_edges(Image.fromarray(pixels)) > 240)
    return np.where(ink[..., None], (36, 30, 28), (240, 226, 196)).astype(np.uint8)


STYLES: dict[str, Filter] = {
    "watercolor painting": watercolor,
    "pencil sketch": sketch,
    "pixel art picture": pixel_art,
    "pop art poster": pop_art,
    "mosaic": mosaic,
    "oil painting": oil,
    "neon drawing": neon,
    "woodcut print": woodcut,
}
