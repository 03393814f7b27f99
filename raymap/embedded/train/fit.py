"""The training loop that both denoisers share: two rounds, an average of the weights, and checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import track
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

WARMUP = 200
COOLDOWN = 0.3
SECOND_ROUND = 4 / 9
SAVE_EVERY_S = 120.0


def rate(step: int, steps: int) -> float:
    """Return a step's learning rate as a share of the peak: warm-up, a plateau, then a straight line down to zero."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (COOLDOWN * steps))


def position_in_round(step: int, steps: int) -> tuple[int, int]:
    """Return the step within its round and the round's length; the second round takes `SECOND_ROUND` of all steps."""
    first = round(steps * (1 - SECOND_ROUND))
    return (step, first) if step < first else (step - first, steps - first)


def fit(
    model: nn.Module,
    loss_of: Callable[[torch.Generator], torch.Tensor],
    peak: float,
    steps: int,
    checkpoint: Path,
    save: Callable[[dict[str, torch.Tensor]], None],
) -> None:
    """Train `model`, on its own device, for `steps` steps, from `checkpoint` on if it exists.

    There are two rounds (a warm restart, Loshchilov & Hutter 2017): the second starts from the average of the first
    with a new optimizer. After the first round the model is usable already, but draws more softly.

    Args:
        model: what is trained.
        loss_of: the loss of one step, whose random numbers come from a generator on that device, which the step's
            number seeds.
        peak: the largest learning rate.
        steps: steps of both rounds together.
        checkpoint: file that holds the state of the training, rewritten every `SAVE_EVERY_S` seconds.
        save: is given the weights' exponential moving average (0.999) at each checkpoint and at the end.
    """
    device = next(model.parameters()).device
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    optimizer = _adamw(model, peak)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    saved = time.monotonic()
    for step in track(range(first, steps), "training the denoiser"):
        step_of_round, length = position_in_round(step, steps)
        if step > 0 and step_of_round == 0:
            model.load_state_dict(average.module.state_dict())
            optimizer = _adamw(model, peak)
        for group in optimizer.param_groups:
            group["lr"] = peak * rate(step_of_round, length)
        optimizer.zero_grad()
        # On a CPU the backward pass of fused attention takes twice as long as that of the plain formula.
        with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext():
            loss_of(torch.Generator(device).manual_seed(step)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        if step + 1 == steps or time.monotonic() - saved > SAVE_EVERY_S:
            state = {"model": model.state_dict(), "average": average.state_dict()}
            partial = checkpoint.with_suffix(".partial")
            torch.save(state | {"optimizer": optimizer.state_dict(), "step": step + 1}, partial)
            partial.replace(checkpoint)
            save({name: weight.cpu() for name, weight in average.module.state_dict().items()})
            saved = time.monotonic()


def _adamw(model: nn.Module, peak: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
