"""The side path: an adapter acts beside layers whose weights are quantised or offloaded, and so are not written."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from raymap.adapters.update import Additive, LowRank, Replacement, Update


def is_written(component: nn.Module, parameter: torch.Tensor) -> bool:
    """Return whether updates are written into a component's weight itself.

    They are not where it is quantised, or where accelerate moves the component to its device for each use.
    """
    plain = type(parameter) in (nn.Parameter, torch.Tensor)
    packed = not parameter.is_floating_point() or parameter.element_size() < 2
    return plain and not packed and not hasattr(component, "_hf_hook")


def has_side_path(module: nn.Module, parameter: str) -> bool:
    """Return whether updates of a layer's parameter can act beside it: of the weight of linear layers, quantised ones
    too, and of convolutions without groups."""
    linear = hasattr(module, "in_features") and hasattr(module, "out_features")
    return parameter == "weight" and (linear or (isinstance(module, nn.Conv2d) and module.groups == 1))


class SidePath:
    """Adds an update's share to a layer's output y for an input x: y + α · scale · up(down x) for a low-rank update.

    Without an update, and under one that is zero, the output is that of the base, bit for bit.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._update: Update | None = None
        self._alpha = 1.0
        self._own: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, ...]] = {}
        layer.register_forward_hook(self._added)

    def set(self, update: Update | None, alpha: float = 1.0) -> None:
        """Put an update in force, scaled by alpha; None is the base."""
        self._update, self._alpha = update, alpha
        self._own = {}

    def _added(self, layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        update, x = self._update, inputs[0]
        if update is None or self._alpha == 0:
            return None
        if isinstance(update, LowRank):
            down, up = self._at(x, update.down, update.up)
            narrow = self._apply(x, down, None)
            convolved = isinstance(layer, nn.Conv2d)
            wide = functional.conv2d(narrow, up[:, :, None, None]) if convolved else functional.linear(narrow, up)
            return output + (self._alpha * update.scale) * wide.to(output.dtype)
        if not isinstance(update, Replacement):
            added = self._apply(x, self._delta(x, update), None)
            return output + self._alpha * added.to(output.dtype)
        weight = self._at(x, update.weight)[0]
        bias = layer.bias.to(x.dtype) if isinstance(layer.bias, torch.Tensor) else None
        replaced = self._apply(x, weight, bias).to(output.dtype)
        return replaced if self._alpha == 1 else torch.lerp(output, replaced, self._alpha)

    def _delta(self, x: torch.Tensor, update: Update) -> torch.Tensor:
        """Return ΔW as the input is, flattened; the layer's own weight is on the device of its input now."""
        key = (x.device, x.dtype)
        if key not in self._own:
            weight: Any = self._layer.weight
            whole = update.matrix() if isinstance(update, Additive) else update.delta(weight)
            self._own[key] = (whole.flatten(1).to(x.device, x.dtype),)
        return self._own[key][0]

    def _apply(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return what the layer gives with another weight (rows, in), flattened for a convolution."""
        layer = self._layer
        if isinstance(layer, nn.Conv2d):
            return layer._conv_forward(x, weight.view(weight.shape[0], -1, *layer.kernel_size), bias)
        return functional.linear(x, weight, bias)

    def _at(self, x: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return an update's tensors as the input has them, kept until another update is in force."""
        key = (x.device, x.dtype)
        if key not in self._own:
            self._own[key] = tuple(tensor.to(x.device, x.dtype) for tensor in tensors)
        return self._own[key]
