"""A pair judge without a model: the root-mean-square difference of two blurred images.

    d(x, y) = sqrt(mean over pixels and channels of (G * x - G * y)²) / 255

G is a Gaussian with a standard deviation of 3 pixels; an image whose shorter side is above 64 pixels is first reduced
to 64 by averaging areas, so that the blur is about a twentieth of the side at every size. Blurring before subtracting
follows Zhang & Wandell (1997, A spatial extension of CIELAB for digital color-image reproduction): differences finer
than the blur do not count. It sees what is where, and in which colour; it knows nothing of meaning.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 64
SIGMA = 3.0


class BlurredRms:
    """Pair judge `blurred-rms`: 0 for images that are equal once they are blurred, 1 for black against white."""

    version = "1"
    unit = "share of the range of pixel values, 0 to 1"

    def __init__(self, device: str) -> None:
        """Load nothing; the CPU computes, whatever the device."""

    def distances(self, base: np.ndarray, adapted: np.ndarray) -> np.ndarray:
        """Return d of each pair, float64 (N,), in [0, 1].

        Args:
            base, adapted: uint8 (N, H, W, 3).
        """
        differences = [_blurred(one) - _blurred(other) for one, other in zip(base, adapted, strict=True)]
        return np.array([np.sqrt(np.mean(difference**2)) / 255 for difference in differences])


def _blurred(pixels: np.ndarray) -> np.ndarray:
    """Return an image as `G * x`, float64 (H, W, 3), after it was reduced."""
    image = Image.fromarray(pixels)
    shrink = SIDE / min(image.size)
    if shrink < 1:
        width, height = (max(1, round(side * shrink)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    return gaussian_filter(np.asarray(image, dtype=np.float64), sigma=(SIGMA, SIGMA, 0))
