"""Trainable weights of several subjects beside one frozen denoiser: every weight has a leading subject axis.

A batch holds one subject's samples after another's, equally many of each. A frozen module gets the whole batch, and
each subject's samples meet that subject's weights alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from raymap.base.skeleton import is_target

Weights = dict[str, nn.Parameter]


@contextlib.contextmanager
def low_rank(
    denoiser: nn.Module, targets: tuple[str, ...], rank: int, alpha: float, subjects: int, seed: int
) -> Iterator[Weights]:
    """Add alpha/rank · B A x to the output of every targeted linear layer, with each subject's own A and B.

    Initialized as peft's `init_lora_weights="gaussian"`: A from N(0, 1/rank²), B zero. All subjects start from the
    same A.

    Yields:
        `<layer>.lora_A.weight` (subjects, rank, in) and `<layer>.lora_B.weight` (subjects, out, rank).
    """
    random = torch.Generator("cpu").manual_seed(seed)
    weights: Weights = {}
    with contextlib.ExitStack() as hooks:
        for name, layer in _linear(denoiser, targets):
            first = torch.randn(rank, layer.in_features, generator=random) / rank
            down = nn.Parameter(first.to(layer.weight.device).repeat(subjects, 1, 1))
            up = nn.Parameter(down.new_zeros(subjects, layer.out_features, rank))
            weights[f"{name}.lora_A.weight"], weights[f"{name}.lora_B.weight"] = down, up

            def add(
                _: nn.Module,
                args: tuple[torch.Tensor, ...],
                output: torch.Tensor,
                down: torch.Tensor = down,
                up: torch.Tensor = up,
            ) -> torch.Tensor:
                update = alpha / rank * (_by_subject(args[0], subjects) @ down.mT) @ up.mT
                return output + update.view(output.shape)

            hooks.callback(layer.register_forward_hook(add).remove)
        yield weights


@contextlib.contextmanager
def full_rank(
    denoiser: nn.Module, targets: tuple[str, ...], subjects: int, without_gradient: int = 0
) -> Iterator[Weights]:
    """Replace the weight of every targeted linear layer by each subject's own, which starts from the base's.

    Args:
        without_gradient: of so many tokens at the beginning, the layer's outputs pass no gradient on.

    Yields:
        `<layer>.weight` (subjects, out, in).
    """
    weights: Weights = {}
    with contextlib.ExitStack() as hooks:
        for name, layer in _linear(denoiser, targets):
            weight = nn.Parameter(layer.weight.detach().float().repeat(subjects, 1, 1))
            weights[f"{name}.weight"] = weight

            def replace(
                layer: nn.Linear, args: tuple[torch.Tensor, ...], output: torch.Tensor, weight: torch.Tensor = weight
            ) -> torch.Tensor:
                own = (_by_subject(args[0], subjects) @ weight.mT).view(output.shape)
                own = own if layer.bias is None else own + layer.bias
                return torch.cat([own[:, :without_gradient].detach(), own[:, without_gradient:]], 1)

            hooks.callback(layer.register_forward_hook(replace).remove)
        yield weights


def _linear(denoiser: nn.Module, targets: tuple[str, ...]) -> Iterator[tuple[str, nn.Linear]]:
    for name, layer in denoiser.named_modules():
        if isinstance(layer, nn.Linear) and is_target(name, targets):
            yield name, layer


def _by_subject(x: torch.Tensor, subjects: int) -> torch.Tensor:
    """Return a layer's input (subjects · n, tokens, width) as (subjects, n · tokens, width)."""
    return x.reshape(subjects, -1, x.shape[-1])
