"""Watches how image positions attend to a prompt's tokens, in the very call that computes it, and changes nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from raymap.base.families.family import Family

Take = Callable[[int, torch.Tensor], None]
"""Gets a layer's number and its probabilities, float32 (items, heads, positions, tokens)."""

SCORES = 2**26
"""How many scores are computed at a time, for what a joint attention of many positions would take (256 MiB)."""


@dataclass(frozen=True)
class TextAttention:
    """An attention layer that has keys of the prompt: `module` attends, and its layer `key` makes the text's keys."""

    module: nn.Module
    key: nn.Module


def text_attentions(denoiser: nn.Module, family: Family) -> dict[str, TextAttention]:
    """Return a denoiser's attention layers with text keys, in the order of a forward pass, by their blocks' names.

    None where the family's text has no keys of its own.
    """
    modules = dict(denoiser.named_modules())
    ends = family.text_keys[:1]
    found = {}
    for name, key in modules.items():
        if any(name.endswith(f".{end}") for end in ends):
            layer = name.rpartition(".")[0]
            found[layer.rpartition(".")[0]] = TextAttention(modules[layer], key)
    order = {stage: place for place, stage in enumerate(family.stages)}
    return dict(sorted(found.items(), key=lambda pair: order.get(pair[0].partition(".")[0], len(order))))


def probabilities(
    query: torch.Tensor, key: torch.Tensor, scale: float | None, mask: torch.Tensor | None, columns: slice
) -> torch.Tensor:
    """Return columns of softmax(QKᵀ·scale + mask) (Vaswani et al. 2017, eq. 1), in float32 whatever the dtype.

    Args:
        query: (N, heads, positions, width).
        key: (N, heads, keys, width).
        scale: 1/√width by default.
        mask: as `scaled_dot_product_attention` takes it, four axes: true where a key is attended to, or added.

    Returns:
        (N, heads, positions, columns); every row sums to 1 over all keys.
    """
    items, heads, positions, width = query.shape
    scale = 1 / math.sqrt(width) if scale is None else scale
    found = []
    rows = max(1, SCORES // (positions * key.shape[2]))
    for index in torch.arange(items * heads, device=query.device).split(rows):
        item, head = index // heads, index % heads
        scores = (query[item, head].float() * scale) @ key[item, head].float().mT
        if mask is not None:
            own = mask[item % mask.shape[0], head % mask.shape[1]]
            scores = scores.masked_fill(~own, -math.inf) if own.dtype == torch.bool else scores + own
        found.append(scores.softmax(dim=-1)[..., columns].contiguous())  # lets go of the other columns
    return (torch.cat(found) if len(found) > 1 else found[0]).unflatten(0, (items, heads))


class _Seen(TorchFunctionMode):
    """Sees the arguments with which a layer has its attention computed, in the one call that does it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []
        self.tokens = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask")
            self.calls.append({**dict(zip(names, args, strict=False)), **given})
        return func(*args, **given)


class _Watcher:
    """The hooks of one layer."""

    def __init__(self, number: int, name: str, family: Family, items: slice, take: Take) -> None:
        self._number, self._name, self._family, self._items, self._take = number, name, family, items, take
        self._seen = _Seen()

    def begin(self, *_: Any) -> None:
        self._seen = _Seen()
        self._seen.__enter__()

    def key_made(self, module: nn.Module, args: Any, key: torch.Tensor) -> None:
        self._seen.tokens = key.shape[1]

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        seen, self._seen = self._seen, _Seen()  # so that no layer's queries and keys outlive it
        seen.__exit__(None, None, None)
        if output is None:  # the forward failed, and its error is on its way
            return
        if len(seen.calls) != 1:
            problem = f"{self._name}: its attention is computed in {len(seen.calls)} calls of PyTorch instead of one"
            raise RuntimeError(f"{problem}, and cannot be watched")
        given = seen.calls[0]
        rows, columns = _text(seen.tokens, self._family.text_first)
        mask = given.get("attn_mask")
        if mask is not None:
            mask = mask[(None,) * (4 - mask.dim())]
            mask = mask[self._items] if len(mask) > 1 else mask
            mask = mask[:, :, rows] if mask.shape[2] > 1 else mask
        query, key = given["query"][self._items, :, rows], given["key"][self._items]
        self._take(self._number, probabilities(query, key, given.get("scale"), mask, columns))


def _text(tokens: int, first: bool | None) -> tuple[slice, slice]:
    """Return which queries are the image's and which keys the text's, in cross-attention (None) or a joint one."""
    if first is None:
        return slice(None), slice(None)
    return (slice(tokens, None), slice(tokens)) if first else (slice(-tokens), slice(-tokens, None))


@contextlib.contextmanager
def watched(denoiser: nn.Module, family: Family, items: slice, take: Take) -> Iterator[None]:
    """Pass the probabilities with which image positions attend to text tokens to `take`, layer by layer.

    They follow from the queries, keys and masks with which the layer itself calls `scaled_dot_product_attention`:
    norms and rotary positions are in them already. In a joint attention a row sums to less than 1, because the
    image's own keys, which share the softmax, are left out.

    Args:
        items: which of the batch; where a pass serves both sides of guidance, the prompt's are the second half.

    Raises:
        RuntimeError: a layer computes its attention in another way.
    """
    with contextlib.ExitStack() as stack:
        for number, (name, layer) in enumerate(text_attentions(denoiser, family).items()):
            watcher = _Watcher(number, name, family, items, take)
            for hook in (
                layer.module.register_forward_pre_hook(watcher.begin),
                layer.key.register_forward_hook(watcher.key_made),
                layer.module.register_forward_hook(watcher.end, always_call=True),
            ):
                stack.callback(hook.remove)
        yield
