"""Watches cross-attention: wraps the processors of its layers, and changes nothing that they compute."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from raymap.base.families.family import Family

Take = Callable[[int, torch.Tensor], None]
"""Gets a layer's number and its probabilities, float32 (items, heads, positions, tokens)."""


def cross_attentions(denoiser: nn.Module, family: Family) -> dict[str, Any]:
    """Return a denoiser's cross-attention modules, in the order of a forward pass, by the names of their blocks."""
    end = f".{family.cross_attention}"
    modules = {name.removesuffix(end): module for name, module in denoiser.named_modules() if name.endswith(end)}
    return dict(sorted(modules.items(), key=lambda pair: family.stages.index(pair[0].partition(".")[0])))


def probabilities(attn: Any, hidden: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Return softmax(QKᵀ/√d) of a diffusers `Attention` (Vaswani et al. 2017, eq. 1), in float32 whatever its dtype.

    Args:
        hidden: spatial features (N, positions, channels).
        text: text features (N, tokens, width).

    Returns:
        (N, heads, positions, tokens); every row sums to 1.
    """
    if attn.norm_cross:
        text = attn.norm_encoder_hidden_states(text)
    query, key = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (attn.to_q(hidden), attn.to_k(text)))
    query = query if attn.norm_q is None else attn.norm_q(query)
    key = key if attn.norm_k is None else attn.norm_k(key)
    return torch.softmax((query.float() * attn.scale) @ key.float().mT, dim=-1)


class Watcher:
    """A processor that computes the probabilities of some items of a batch, then calls the original."""

    def __init__(self, original: Any, layer: int, items: slice, take: Take) -> None:
        self.original = original
        self._layer, self._items, self._take = layer, items, take

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> Any:
        # The parameters are listed because diffusers passes a processor only those that its signature names.
        if encoder_hidden_states is None or attention_mask is not None:
            raise RuntimeError("only attention that reads text without a mask can be watched")
        self._take(self._layer, probabilities(attn, hidden_states[self._items], encoder_hidden_states[self._items]))
        return self.original(
            attn, hidden_states, encoder_hidden_states=encoder_hidden_states, attention_mask=None, temb=temb
        )


@contextlib.contextmanager
def watched(denoiser: nn.Module, family: Family, items: slice, take: Take) -> Iterator[None]:
    """Pass the cross-attention probabilities of every forward pass to `take`, layer by layer.

    Args:
        items: which of the batch; under classifier-free guidance the conditional ones are the second half.
    """
    modules = list(cross_attentions(denoiser, family).values())
    originals = [module.processor for module in modules]
    try:
        for layer, (module, original) in enumerate(zip(modules, originals, strict=True)):
            module.set_processor(Watcher(original, layer, items, take))
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.set_processor(original)
