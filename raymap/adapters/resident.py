"""All adapters of a run, resident beside the base whose weights they change."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from raymap.adapters.triggers import may_stand_in
from raymap.adapters.update import Adapter, Token, Update
from raymap.base.families.registry import family_of

EMBEDDING = "text_encoder.token_embedding"
MERGED_BYTES = 4 * 2**30
"""How many bytes of merged weights are kept on a CPU, so that each adapter is merged once and then exchanged."""
State = tuple[str, float, frozenset[str] | None] | None


def weights_of(pipeline: DiffusionPipeline) -> dict[str, nn.Parameter]:
    """Return a pipeline's adaptable weights by `component.parameter`, named as in a skeleton."""
    return {
        f"{component}.{name}": parameter
        for component in family_of(pipeline).adapted
        for name, parameter in getattr(pipeline, component).named_parameters()
    }


class AdapterStore:
    """All adapters on the base's device; one at a time is in force.

    A swap writes W0 + α·ΔW into the live weights, from pristine copies of W0. Addresses stay, nothing is recompiled,
    and `restore` brings W0 back bit for bit (fusing and unfusing does not). New tokens are written into spare rows at
    the end of the token embedding, which grows when an adapter is added and never on a swap.

    On a CPU, where writing is slow and no CUDA graph holds an address, parameters stay and their storage is exchanged:
    for W0 itself, for the adapter's merged weights if they fit into MERGED_BYTES, else for a scratch copy that is
    written as above.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._pipeline = pipeline
        self._live = weights_of(pipeline)
        self._embedding = pipeline.text_encoder.get_input_embeddings()
        self._tokenizer = pipeline.tokenizer
        self._first = len(pipeline.tokenizer)
        self._adapters: dict[str, Adapter] = {}
        self._tokenizers: dict[str, Any] = {}
        self._pristine: dict[str, torch.Tensor] = {}
        self._exchanges = self._embedding.weight.device.type == "cpu"
        self._merged: dict[tuple[str, str], torch.Tensor] = {}
        self._kept = 0
        self._scratch: dict[str, torch.Tensor] = {}
        self._changed: set[str] = set()
        self._state: State = None

    @property
    def active(self) -> str | None:
        """The name of the adapter in force; None is the base."""
        return self._state[0] if self._state else None

    @property
    def text_state(self) -> State:
        """What decides a prompt's embeddings: the adapter in force if it changes the text side, else None."""
        return self._state if self._state and self._adapters[self._state[0]].touches_text else None

    def touches_denoiser(self, name: str) -> bool:
        """Return whether an adapter changes weights of the denoiser."""
        return self._adapters[name].touches_denoiser

    @torch.no_grad()
    def add(self, name: str, adapter: Adapter) -> None:
        """Make an adapter resident. The base has to be in force.

        Raises:
            RuntimeError: an adapter is in force, or the name is taken.
        """
        if self._state is not None or name in self._adapters:
            raise RuntimeError(f"{name}: restore the base before adding" if self._state else f"{name} is taken")
        device = self._embedding.weight.device
        for key in adapter.updates:
            if key not in self._pristine:
                own = self._live[key].detach()
                self._pristine[key] = own if self._exchanges else own.clone()
        if adapter.rows is not None and EMBEDDING not in self._pristine:
            self._pristine[EMBEDDING] = self._embedding.weight[: self._first].detach().clone()
        self._grow(sum(len(t.vectors) for t in adapter.tokens))
        updates: dict[str, Update] = {key: update.to(device) for key, update in adapter.updates.items()}
        tokens = tuple(Token(t.trigger, t.vectors.to(device)) for t in adapter.tokens)
        rows = None if adapter.rows is None else adapter.rows.to(device)
        self._adapters[name] = Adapter(updates, tokens, rows)

    @torch.no_grad()
    def swap(self, name: str | None, alpha: float = 1.0, only: frozenset[str] | None = None) -> None:
        """Make `name` the adapter in force; None restores the base.

        Args:
            alpha: scales the update of every weight: 0 is the base, 1 the adapter as trained. New tokens have no value
                in the base and are not scaled.
            only: names of the weights to write (`unet.….weight`); None is all of them.

        Raises:
            KeyError: the name was never added, or the adapter does not update one of the weights.
        """
        state = None if name is None else (name, alpha, only)
        if state == self._state:
            return
        adapter = Adapter({}) if name is None else self._adapters[name]
        if only is not None and (unknown := only - adapter.updates.keys()):
            raise KeyError(min(unknown))
        wanted = {key: u for key, u in adapter.updates.items() if only is None or key in only}
        for key in self._changed - wanted.keys():
            if self._exchanges and key != EMBEDDING:
                self._live[key].data = self._pristine[key]
            else:
                self._target(key).copy_(self._pristine[key])
        for key, update in wanted.items():
            if self._exchanges:
                self._live[key].data = self._merge(str(name), key, update, alpha)
            else:
                update.write(self._pristine[key], self._live[key], alpha)
        if adapter.rows is not None:
            self._target(EMBEDDING).copy_(torch.lerp(self._pristine[EMBEDDING], adapter.rows, alpha))
        spare = self._embedding.weight[self._first :]
        spare.zero_()
        if adapter.tokens:
            vectors = torch.cat([t.vectors for t in adapter.tokens])
            spare[: len(vectors)] = vectors.to(spare.dtype)
        self._changed = set(wanted) | ({EMBEDDING} if adapter.rows is not None else set())
        self._state = state

    def restore(self) -> None:
        """Bring the base back, bit for bit."""
        self.swap(None)

    def tokenizer(self, prompt: str) -> Any:
        """Return the tokenizer that reads a prompt under the adapter in force.

        If no trigger can be found in the prompt, it is the base's own, which gives the same ids: the costly copy with
        added tokens is not made.
        """
        tokens = self._adapters[self._state[0]].tokens if self._state else ()
        if not self._state or not any(may_stand_in(name, prompt) for t in tokens for name in t.names):
            return self._tokenizer
        name = self._state[0]
        if name not in self._tokenizers:
            extended = copy.deepcopy(self._tokenizer)
            names = [n for t in tokens for n in t.names]
            if extended.add_tokens(names) != len(names) or extended.convert_tokens_to_ids(names[0]) != self._first:
                raise RuntimeError(f"{name}: the tokenizer does not take {names}")
            self._tokenizers[name] = extended
        return self._tokenizers[name]

    def _merge(self, name: str, key: str, update: Update, alpha: float) -> torch.Tensor:
        """Return one weight under an adapter, in storage of its own: kept from before, or in a scratch copy."""
        if alpha == 1 and (name, key) in self._merged:
            return self._merged[name, key]
        pristine = self._pristine[key]
        if alpha == 1 and self._kept + pristine.nbytes <= MERGED_BYTES:
            merged = self._merged[name, key] = torch.empty_like(pristine)
            self._kept += pristine.nbytes
        else:
            if key not in self._scratch:
                self._scratch[key] = torch.empty_like(pristine)
            merged = self._scratch[key]
        update.write(pristine, merged, alpha)
        return merged

    def _target(self, key: str) -> torch.Tensor:
        return self._embedding.weight[: self._first] if key == EMBEDDING else self._live[key]

    def _grow(self, rows: int) -> None:
        weight = self._embedding.weight
        missing = self._first + rows - len(weight)
        if missing > 0:
            grown = torch.cat([weight.detach(), weight.new_zeros(missing, weight.shape[1])])
            self._embedding.weight = nn.Parameter(grown, requires_grad=weight.requires_grad)
            self._embedding.num_embeddings = len(grown)
            self._live = weights_of(self._pipeline)
