"""Trains the LPIPS backbone (SqueezeNet on the world's labels) and calibrates its linear heads."""

from __future__ import annotations

from pathlib import Path

import lpips
import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import save_file
from torch import nn
from torchvision.models import squeezenet1_1

from raymap.embedded.train.data import Split
from raymap.embedded.train.distortions import LEVELS, graded
from raymap.embedded.train.vae import to_model

BATCH = 64
PEAK_LR = 7e-4
SLICES = ((0, 1), (2, 3, 4), (5, 6, 7), (8, 9), (10,), (11,), (12,))
"""For each `net.sliceK` of lpips, K from 1: the numbers N of torchvision's layers `features.N` that it holds."""
CALIBRATION_IMAGES = 160
HEAD_STEPS = 400
TOP_DISTANCE = 0.75
"""The distance that calibration aims at for the highest level of a distortion."""


def _backbone(split: Split, steps: int, device: torch.device) -> nn.Module:
    labels = sorted({label for joined in split.labels for label in joined.split("|")})
    position = {label: k for k, label in enumerate(labels)}
    targets = torch.zeros(len(split.labels), len(labels))
    for row, joined in enumerate(split.labels):
        targets[row, [position[label] for label in joined.split("|")]] = 1
    pixels, targets = torch.from_numpy(split.pixels).to(device), targets.to(device)
    net = squeezenet1_1(num_classes=len(labels)).train().to(device, memory_format=torch.channels_last)
    scaling = lpips.ScalingLayer().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_LR, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps, pct_start=0.15)
    for _ in track(range(steps), "training the LPIPS backbone"):
        rows = torch.randint(len(pixels), (BATCH,), device=device)
        x = pixels[rows].permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast(device.type, torch.bfloat16):
            logits = net(scaling(x).contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets[rows]) * 20
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net.eval().cpu()


def _assembled(net: nn.Module) -> lpips.LPIPS:
    metric = lpips.LPIPS(net="squeeze", pretrained=False, pnet_rand=True, verbose=False).eval()
    names = {f"features.{n}": f"net.slice{k}.{n}" for k, group in enumerate(SLICES, 1) for n in group}
    state = {}
    for name, value in net.state_dict().items():
        prefix = ".".join(name.split(".")[:2])
        if prefix in names:
            state[name.replace(prefix, names[prefix])] = value
    missing = [k for k in metric.load_state_dict(state, strict=False).missing_keys if k.startswith("net.")]
    if missing:
        raise RuntimeError(f"the trained backbone has no weights for {missing}")
    return metric


@torch.no_grad()
def _differences(metric: lpips.LPIPS, a: np.ndarray, b: np.ndarray) -> list[torch.Tensor]:
    """Return the mean squared difference of every unit-normalised channel: one (N, C) tensor per layer."""
    rows = []
    for k in range(0, len(a), 80):
        fa, fb = (metric.net(metric.scaling_layer(to_model(x[k : k + 80]))) for x in (a, b))
        rows.append([(lpips.normalize_tensor(p) - lpips.normalize_tensor(q)).square().mean((2, 3))
                     for p, q in zip(fa, fb, strict=True)])  # fmt: skip
    return [torch.cat([row[k] for row in rows]) for k in range(len(SLICES))]


def _calibrate(metric: lpips.LPIPS, pixels: np.ndarray) -> None:
    """Fit non-negative head weights so that a distortion's distance grows in even steps with its level.

    As in Zhang et al. (2018) the heads are 1x1 convolutions kept non-negative by clamping. The loss is the
    squared error to the even steps, plus a hinge on neighbouring levels that are in the wrong order.
    """
    sets = graded(pixels)
    n = len(pixels)
    base = np.concatenate([pixels] * LEVELS)
    layers = [_differences(metric, base, d.reshape(-1, *pixels.shape[1:])) for d in sets.values()]
    heads = [torch.full((layer.shape[1],), 1.0 / layer.shape[1], requires_grad=True) for layer in layers[0]]
    optimizer = torch.optim.Adam(heads, lr=3e-2)
    target = torch.arange(1, LEVELS + 1).repeat_interleave(n) * (TOP_DISTANCE / LEVELS)
    for _ in track(range(HEAD_STEPS), "calibrating the LPIPS heads"):
        loss = torch.zeros(())
        for layer in layers:
            distance = torch.stack([x @ w for x, w in zip(layer, heads, strict=True)]).sum(0)
            steps = distance.view(LEVELS, n)
            loss = loss + (distance - target).square().mean() + F.relu(0.03 - steps[1:] + steps[:-1]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for w in heads:
                w.clamp_(min=0)
    for linear, weights in zip(metric.lins, heads, strict=True):
        linear.model[-1].weight.data.copy_(weights.detach().view(1, -1, 1, 1))


def train(split: Split, steps: int, folder: Path, device: torch.device, seed: int = 0) -> lpips.LPIPS:
    """Train on images of the world, save `lpips_squeeze.safetensors` (backbone and heads) into `folder`, return it.

    The backbone is trained on `device`, the heads, which are a few hundred numbers, on the CPU.
    """
    torch.manual_seed(seed)
    metric = _assembled(_backbone(split, steps, device))
    _calibrate(metric, split.pixels[:CALIBRATION_IMAGES])
    folder.mkdir(parents=True, exist_ok=True)
    keep = {k: v.half().contiguous() for k, v in metric.state_dict().items() if k.startswith(("net.", "lin"))}
    save_file({k: v for k, v in keep.items() if not k.startswith("lins.")}, folder / "lpips_squeeze.safetensors")
    return metric
