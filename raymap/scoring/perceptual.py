"""LPIPS distances between seed-matched images."""

from __future__ import annotations

from typing import Any

import lpips
import numpy as np
import torch

from raymap.embedded.judges import load_lpips
from raymap.errors import InputError
from raymap.scoring.names import RANDOM


class LpipsScorer:
    """The metric of the lpips package; `name` is `embedded` or one of its nets (`alex`, `vgg`, `squeeze`).

    To measure times, `random:NET` has random weights.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        if name == "embedded":
            metric: Any = load_lpips()
        elif name.startswith(RANDOM):
            net = name.removeprefix(RANDOM)
            metric = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        else:
            try:
                metric = lpips.LPIPS(net=name, verbose=False)
            except OSError as error:
                problem = f"its backbone cannot be fetched ({type(error).__name__})"
                raise InputError(f"lpips: {name}", problem, "check the network or use embedded") from error
        self.device = device
        self.metric = metric.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return LPIPS(a, b), float32 (N,), at least 0, for images uint8 (N, H, W, 3) of one shape.

        Raises:
            ValueError: the arrays are not both uint8 (N, H, W, 3) of the same shape (lpips itself would broadcast).
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[3] != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
            raise ValueError(f"expected two uint8 (N, H, W, 3) arrays, got {a.dtype}{a.shape} and {b.dtype}{b.shape}")
        return self.metric(self._input(a), self._input(b)).flatten().cpu().numpy()

    def _input(self, pixels: np.ndarray) -> torch.Tensor:
        # A copy, because the array may be a read-only view of shared memory, which torch must not write to.
        x = torch.tensor(pixels, device=self.device).permute(0, 3, 1, 2).float()
        return x / 127.5 - 1
