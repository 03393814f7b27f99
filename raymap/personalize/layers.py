"""Trainable weights of several subjects beside one frozen denoiser: every weight has a leading subject axis.

A batch holds the subjects' samples one subject after another, as many of each; a frozen module sees the batch whole,
and each subject's samples meet that subject's weights alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from raymap.study.recipes import KEYS_AND_VALUES, is_target

Weights = dict[str, nn.Parameter]


@contextlib.contextmanager
def low_rank(
    unet: UNet2DConditionModel, targets: tuple[str, ...], rank: int, alpha: float, subjects: int, seed: int
) -> Iterator[Weights]:
    """Add alpha/rank · B A x to every targeted linear layer's output, for each subject its own.

    Initialized as peft's `init_lora_weights="gaussian"`: A from N(0, 1/rank²), B zero.

    Yields:
        `<module>.lora_A.weight` (subjects, rank, in) and `<module>.lora_B.weight` (subjects, out, rank). All subjects
        set out from the same A.
    """
    random = torch.Generator("cpu").manual_seed(seed)
    weights: Weights = {}
    with contextlib.ExitStack() as hooks:
        for name, layer in unet.named_modules():
            if not (isinstance(layer, nn.Linear) and is_target(name, targets)):
                continue
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
def keys_and_values(unet: UNet2DConditionModel, subjects: int) -> Iterator[Weights]:
    """Put each subject's own keys and values in cross-attention's place; the first token's pass no gradient on.

    Yields:
        `<module>.weight` (subjects, out, in), set out from the base's.
    """
    weights: Weights = {}
    with contextlib.ExitStack() as hooks:
        for name, layer in unet.named_modules():
            if not name.endswith(KEYS_AND_VALUES):
                continue
            weight = nn.Parameter(layer.weight.detach().repeat(subjects, 1, 1))
            weights[f"{name}.weight"] = weight

            def replace(
                _: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor, weight: torch.Tensor = weight
            ) -> torch.Tensor:
                own = (_by_subject(args[0], subjects) @ weight.mT).view(output.shape)
                return torch.cat([own[:, :1].detach(), own[:, 1:]], 1)

            hooks.callback(layer.register_forward_hook(replace).remove)
        yield weights


def _by_subject(x: torch.Tensor, subjects: int) -> torch.Tensor:
    """Return a layer's input (subjects · n, tokens, width) as (subjects, n · tokens, width)."""
    return x.reshape(subjects, -1, x.shape[-1])
