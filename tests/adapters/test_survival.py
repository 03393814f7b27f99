"""How much of an update survives rounding, on random weights."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from raymap.adapters.survival import LAYERS, sampled, surviving
from raymap.adapters.update import LowRank


def update_of(weight: torch.Tensor, ratio: float, random: torch.Generator) -> LowRank:
    """Return an update of rank 16 whose norm is a share of the weight's."""
    down, up = torch.randn(16, weight.shape[1], generator=random), torch.randn(weight.shape[0], 16, generator=random)
    update = LowRank(down, up, 1.0)
    return LowRank(down, up, ratio * float(weight.norm()) / update.norm(weight))


@pytest.mark.parametrize(
    ("ratio", "half", "brain", "eighth"),
    [(0.0003, 0.87, 0.18, 0.01), (0.001, 1.0, 0.54, 0.04), (0.003, 1.0, 0.93, 0.12), (0.01, 1.0, 1.0, 0.37)],
)
def test_shares_are_those_that_were_measured_on_random_weights(
    ratio: float, half: float, brain: float, eighth: float
) -> None:
    """An independent script measured these on Gaussian weights of a standard deviation of 0.02."""
    random = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(640, 640, generator=random)
    found = surviving({"a": update_of(weight, ratio, random)}, {"a": weight})
    assert found["float16"] == pytest.approx(half, abs=0.05)
    assert found["bfloat16"] == pytest.approx(brain, abs=0.05)
    assert found["fp8"] == pytest.approx(eighth, abs=0.05)


def test_an_update_that_is_zero_has_no_share() -> None:
    weight = torch.ones(4, 4)
    assert surviving({"a": LowRank(torch.zeros(1, 4), torch.zeros(4, 1), 1.0)}, {"a": weight}) == {}
    assert surviving({}, {}) == {}


def test_layers_are_sampled_over_the_whole_adapter() -> None:
    update = LowRank(torch.zeros(1, 4), torch.zeros(4, 1), 1.0)
    names = sampled({f"layer{k:03}": update for k in range(300)})
    assert len(names) == LAYERS
    steps = {int(b[5:]) - int(a[5:]) for a, b in pairwise(names)}
    assert steps == {math.floor(300 / LAYERS)}
