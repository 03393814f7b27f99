"""Graded distortions of images, which a perceptual distance has to rank by their level."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

LEVELS = 5


def noise(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Add white noise with a standard deviation of 8 grey values per level."""
    return np.clip(pixels + rng.normal(0, 8 * level, pixels.shape), 0, 255).astype(np.uint8)


def blur(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian with a standard deviation of 0.5 pixels per level."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.5 * level)))


def shift(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Move the image down by 3 pixels per level, repeating its border."""
    move = 3 * level
    return np.pad(pixels, ((0, 0), (move, 0), (0, 0)), mode="edge")[:, : pixels.shape[1]]


def color(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Turn the hue by 12 of 256 steps per level and move the colours towards grey by 8 % per level."""
    hsv = np.asarray(Image.fromarray(pixels).convert("HSV")).copy()
    hsv[..., 0] = hsv[..., 0] + np.uint8(12 * level)
    rgb = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")).astype(np.float32)
    gray = rgb.mean(-1, keepdims=True)
    return np.clip(rgb + (gray - rgb) * 0.08 * level, 0, 255).astype(np.uint8)


DISTORTIONS = {"noise": noise, "blur": blur, "shift": shift, "color": color}


def graded(pixels: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return every distortion at every level: name -> uint8 (5, N, H, W, 3), for images uint8 (N, H, W, 3)."""
    rng = np.random.default_rng(seed)
    return {
        name: np.stack([np.stack([f(p, level, rng) for p in pixels]) for level in range(1, LEVELS + 1)])
        for name, f in DISTORTIONS.items()
    }
