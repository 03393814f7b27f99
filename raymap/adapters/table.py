"""The token embedding of a text encoder and its tokenizer, while adapters add tokens to both."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from raymap.adapters.triggers import may_stand_in
from raymap.adapters.update import Token


class TokenTable:
    """One text encoder's token embedding, with room for new tokens behind the tokenizer's own.

    Published embeddings may have more rows than their tokenizer has entries; new tokens are written into those first.
    The embedding grows when an adapter is added and never on a swap, so that its address stays.
    """

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        self._embedding = encoder.get_input_embeddings()
        weight = self._embedding.weight
        # T5 and most language models hold the same table under a second name.
        self._holders = [(m, key) for m in encoder.modules() for key, held in m._parameters.items() if held is weight]
        self._tokenizer = tokenizer
        self._first = len(tokenizer)
        self._spare = weight[self._first :].detach().clone()
        self._pristine: torch.Tensor | None = None
        self._changed = False
        self._tokenizers: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """The device on which the table is."""
        device: torch.device = self._embedding.weight.device
        return device

    def keep(self) -> None:
        """Keep a copy of all rows, so that an adapter may replace them."""
        if self._pristine is None:
            self._pristine = self._embedding.weight[: self._first].detach().clone()

    def grow(self, count: int) -> bool:
        """Make room for so many new tokens; return whether the table had to be replaced by a larger one."""
        weight = self._embedding.weight
        missing = self._first + count - len(weight)
        if missing <= 0:
            self._spare = weight[self._first :].detach().clone()
            return False
        grown = torch.cat([weight.detach(), weight.new_zeros(missing, weight.shape[1])])
        table = nn.Parameter(grown, requires_grad=weight.requires_grad)
        for module, key in self._holders:
            module._parameters[key] = table
            if hasattr(module, "num_embeddings"):
                module.num_embeddings = len(grown)
        self._spare = grown[self._first :].clone()
        return True

    @torch.no_grad()
    def write(self, vectors: torch.Tensor | None, rows: torch.Tensor | None, alpha: float) -> None:
        """Put new tokens and replaced rows in force; what an earlier call wrote goes back to the base's, bit for bit.

        Args:
            vectors: of all new tokens, one after another (n, width).
            rows: what replaces all rows of the tokenizer's own entries, as far as alpha says.
        """
        weight = self._embedding.weight
        if self._changed and rows is None and self._pristine is not None:
            weight[: self._first].copy_(self._pristine)
        weight[self._first : self._first + len(self._spare)] = self._spare
        if rows is not None and self._pristine is not None:
            weight[: self._first].copy_(torch.lerp(self._pristine.float(), rows, alpha))
        if vectors is not None:
            weight[self._first : self._first + len(vectors)] = vectors.to(weight.dtype)
        self._changed = rows is not None

    def tokenizer(self, adapter: str, tokens: tuple[Token, ...], prompt: str) -> Any:
        """Return the tokenizer that reads a prompt under an adapter.

        If no trigger can be found in the prompt, it is the base's own, which gives the same ids: the costly copy with
        added tokens is not made.
        """
        if not any(may_stand_in(name, prompt) for token in tokens for name in token.names):
            return self._tokenizer
        if adapter not in self._tokenizers:
            extended = copy.deepcopy(self._tokenizer)
            names = [name for token in tokens for name in token.names]
            if extended.add_tokens(names) != len(names) or extended.convert_tokens_to_ids(names[0]) != self._first:
                raise RuntimeError(f"{adapter}: the tokenizer does not take {names}")
            self._tokenizers[adapter] = extended
        return self._tokenizers[adapter]
