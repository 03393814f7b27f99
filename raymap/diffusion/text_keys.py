"""Text keys and values once a batch: what cross-attention makes of a batch's prompts is the same at every step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

Project = Callable[[torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def text_projected_once(unet: nn.Module) -> Iterator[None]:
    """Have a denoiser's cross-attention project a text once, and hand out the result again: the same bits.

    A text is known by its tensor's identity. Neither the weights nor the tensor may change meanwhile.
    """
    projections = [module for name, module in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    for module in projections:
        module.forward = _once(module.forward)
    try:
        yield
    finally:
        for module in projections:
            del module.forward  # the class's own is there again


def _once(project: Project) -> Project:
    held: tuple[torch.Tensor, torch.Tensor] | None = None

    def projected(text: torch.Tensor) -> torch.Tensor:
        nonlocal held
        if held is None or held[0] is not text:
            held = text, project(text)
        return held[1]

    return projected
