"""Changes of images that leave their meaning as it is, and covers that hide it, for whole batches on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F

COVERED = 0.9
"""Share of the meaning that an image shows at most when a part of it is covered, even if that part hides nothing."""
HIDDEN = 0.8
"""What is lost of it when the whole subject is hidden; the loss goes with the root of the share that is hidden."""


def _uniform(n: int, low: float, high: float, like: torch.Tensor) -> torch.Tensor:
    return torch.empty(n, 1, 1, 1, device=like.device).uniform_(low, high)


def _noise(x: torch.Tensor) -> torch.Tensor:
    return x + _uniform(len(x), 0.005, 0.06, x) * torch.randn_like(x)


def _blur(x: torch.Tensor) -> torch.Tensor:
    """Mix each image with a blurred one, so that the blur's strength varies."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device) / 16
    kernel = taps.expand(3, 1, 1, 5)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    soft = F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)
    return torch.lerp(x, soft, _uniform(len(x), 0.2, 1, x))


def _light(x: torch.Tensor) -> torch.Tensor:
    return (x - 0.5) * _uniform(len(x), 0.9, 1.1, x) + 0.5 + _uniform(len(x), -0.06, 0.06, x)


def _shift(x: torch.Tensor) -> torch.Tensor:
    """Move each image by up to 4 pixels, repeating its border."""
    n, _, height, width = x.shape
    padded = F.pad(x, (4, 4, 4, 4), mode="replicate")
    top, left = torch.randint(9, (2, n, 1), device=x.device)
    rows, columns = (at + torch.arange(size, device=x.device) for at, size in ((top, height), (left, width)))
    index = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _jpeg(x: torch.Tensor) -> torch.Tensor:
    """Round the cosine transforms of blocks of 8 x 8 pixels, high frequencies more coarsely, as JPEG does."""
    n, c, height, width = x.shape
    k = torch.arange(8, device=x.device, dtype=torch.float32)
    basis = torch.cos(torch.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= 2**0.5
    blocks = x.reshape(n, c, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    steps = _uniform(n, 0.02, 0.08, x).view(n, 1, 1, 1, 1, 1) * (1 + k[None] + k[:, None]) / 2
    coded = ((basis @ blocks @ basis.T) / steps).round() * steps
    return (basis.T @ coded @ basis).permute(0, 1, 2, 4, 3, 5).reshape(n, c, height, width)


NUISANCES = (_noise, _blur, _light, _shift, _jpeg)


def changed(x: torch.Tensor) -> torch.Tensor:
    """Change images, float32 (N, 3, H, W) in [0, 1]: each in one way, in two, or, every fourth, not at all."""
    kinds = torch.randint(len(NUISANCES), (2, len(x)), device=x.device)
    rounds = torch.rand(len(x), device=x.device)
    for which, needed in ((0, 0.25), (1, 0.7)):
        for k, nuisance in enumerate(NUISANCES):
            rows = ((kinds[which] == k) & (rounds > needed)).nonzero().flatten()
            x = x.index_copy(0, rows, nuisance(x[rows]))
    return x.clamp(0, 1)


def covered(x: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cover a rectangle of each image with any colour, with that of its sides, or with the same part of another image.

    Args:
        x: float32 (N, 3, 64, 64) in [0, 1].
        masks: where the subjects are, float32 (N, 16, 16), 0 to 1.

    Returns:
        The images, and the share of their meaning that they still show, float32 (N,).
    """
    n, side = len(x), x.shape[-1]
    half = torch.empty(2, n, 1, device=x.device).uniform_(8, 20)
    spread = torch.where(torch.rand(1, n, 1, device=x.device) < 0.6, 4.0, 20.0)
    centre = side / 2 + spread * (2 * torch.rand(2, n, 1, device=x.device) - 1)
    at = torch.arange(side, device=x.device)
    rows, columns = (at[None, None] - centre).abs() < half
    cover = rows[:, :, None] & columns[:, None, :]
    flat = torch.rand(n, 3, 1, 1, device=x.device).expand_as(x)
    border = ((x[..., :4].mean((2, 3)) + x[..., -4:].mean((2, 3))) / 2)[:, :, None, None].expand_as(x)
    choice = torch.randint(3, (n, 1, 1, 1), device=x.device)
    fill = torch.where(choice == 0, flat, torch.where(choice == 1, border, x.roll(1, 0)))
    coarse = F.avg_pool2d(cover[:, None].float(), side // masks.shape[-1])[:, 0]
    hidden = (coarse * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1e-6)
    return torch.where(cover[:, None], fill, x), COVERED - HIDDEN * hidden.sqrt()
