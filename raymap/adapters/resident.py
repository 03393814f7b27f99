"""All adapters of a run, resident beside the base whose weights they change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from diffusers import DiffusionPipeline
from torch import nn

from raymap.adapters.beside import SidePath, has_side_path, is_written
from raymap.adapters.table import TokenTable
from raymap.adapters.update import Adapter, Token, Update
from raymap.base.parts import parts_in

MERGED_BYTES = 4 * 2**30
"""How many bytes of merged weights are kept on a CPU, so that each adapter is merged once and then exchanged."""
State = tuple[str, float, frozenset[str] | None] | None


def weights_of(pipeline: DiffusionPipeline) -> dict[str, nn.Parameter]:
    """Return a pipeline's adaptable weights by `component.parameter`, named as in a skeleton."""
    return {
        f"{component}.{name}": parameter
        for component in parts_in(pipeline).adapted
        for name, parameter in getattr(pipeline, component).named_parameters()
    }


class AdapterStore:
    """All adapters on the base's device; one at a time is in force.

    A swap writes W0 + α·ΔW into the live weights, from pristine copies of W0. Addresses stay, nothing is recompiled,
    and `restore` brings W0 back bit for bit (fusing and unfusing does not). New tokens are written into spare rows at
    the end of each text encoder's token embedding.

    On a CPU, where writing is slow and no CUDA graph holds an address, parameters stay and their storage is exchanged:
    for W0 itself, for the adapter's merged weights if they fit into MERGED_BYTES, else for a scratch copy that is
    written as above.

    A quantised weight, and one that accelerate moves to the device for each use, is never written: an adapter acts
    beside its layer (`SidePath`).
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._pipeline = pipeline
        self._live = weights_of(pipeline)
        self._tokenizers = parts_in(pipeline).tokenizers
        self._tables = {
            encoder: TokenTable(getattr(pipeline, encoder), getattr(pipeline, tokenizer))
            for encoder, tokenizer in self._tokenizers.items()
        }
        self._adapters: dict[str, Adapter] = {}
        self._pristine: dict[str, torch.Tensor] = {}
        self._beside: dict[str, SidePath] = {}
        self._exchanges = pipeline.device.type == "cpu"
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
            ValueError: a weight is quantised, and no update can act beside its layer.
        """
        if self._state is not None or name in self._adapters:
            raise RuntimeError(f"{name}: restore the base before adding" if self._state else f"{name} is taken")
        for key in adapter.updates.keys() - self._pristine.keys() - self._beside.keys():
            side = self._side_path(key)
            if side is not None:
                self._beside[key] = side
            else:
                own = self._live[key].detach()
                self._pristine[key] = own if self._exchanges else own.clone()
        for key in adapter.updates.keys() & self._beside.keys():
            plain = self._live[key].is_floating_point() and type(self._live[key]) is nn.Parameter
            if adapter.updates[key].from_base and not plain:
                raise ValueError(f"{key} is quantised, and its update has to be computed from it")
        for encoder in adapter.rows:
            self._tables[encoder].keep()
        grown = [
            self._tables[encoder].grow(sum(len(token.vectors.get(encoder, ())) for token in adapter.tokens))
            for encoder in {encoder: None for token in adapter.tokens for encoder in token.vectors}
        ]
        if any(grown):
            self._live = weights_of(self._pipeline)
        self._adapters[name] = self._placed(adapter)

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
            if key in self._beside:
                self._beside[key].set(None)
            elif self._exchanges:
                self._live[key].data = self._pristine[key]
            else:
                self._live[key].copy_(self._pristine[key])
        for key, update in wanted.items():
            if key in self._beside:
                self._beside[key].set(update, alpha)
            elif self._exchanges:
                self._live[key].data = self._merge(str(name), key, update, alpha)
            else:
                update.write(self._pristine[key], self._live[key], alpha)
        for encoder, table in self._tables.items():
            vectors = [token.vectors[encoder] for token in adapter.tokens if encoder in token.vectors]
            table.write(torch.cat(vectors) if vectors else None, adapter.rows.get(encoder), alpha)
        self._changed = set(wanted)
        self._state = state

    def restore(self) -> None:
        """Bring the base back, bit for bit."""
        self.swap(None)

    @contextlib.contextmanager
    def reading(self, prompt: str) -> Iterator[None]:
        """Give the pipeline the tokenizers that read a prompt under the adapter in force."""
        tokens = self._adapters[self._state[0]].tokens if self._state else ()
        own = {tokenizer: getattr(self._pipeline, tokenizer) for tokenizer in self._tokenizers.values()}
        try:
            for encoder, tokenizer in self._tokenizers.items() if tokens else ():
                known = tuple(token for token in tokens if encoder in token.vectors)
                setattr(self._pipeline, tokenizer, self._tables[encoder].tokenizer(str(self.active), known, prompt))
            yield
        finally:
            for tokenizer, before in own.items():
                setattr(self._pipeline, tokenizer, before)

    def _side_path(self, key: str) -> SidePath | None:
        """Return the side path of a weight that is not to be written; None for others."""
        component, _, name = key.partition(".")
        whole, live = getattr(self._pipeline, component), self._live[key]
        if is_written(whole, live):
            return None
        path, _, parameter = name.rpartition(".")
        layer = whole.get_submodule(path)
        if has_side_path(layer, parameter):
            return SidePath(layer)
        if is_written(layer, live):  # the weight of a norm, for example, which is not quantised
            return None
        raise ValueError(f"{key} is quantised, and its layer, a {type(layer).__name__}, takes no update")

    def _placed(self, adapter: Adapter) -> Adapter:
        """Return an adapter with its tensors beside the weights that they change."""
        computing = self._pipeline._execution_device
        updates: dict[str, Update] = {
            key: u.to(computing if key in self._beside else self._live[key].device)
            for key, u in adapter.updates.items()
        }
        tokens = tuple(
            Token(token.trigger, {encoder: v.to(self._tables[encoder].device) for encoder, v in token.vectors.items()})
            for token in adapter.tokens
        )
        rows = {encoder: rows.to(self._tables[encoder].device) for encoder, rows in adapter.rows.items()}
        return Adapter(updates, tokens, rows)

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
