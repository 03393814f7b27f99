"""Measures attention, one block under one adapter at a time, and puts the measurements into tables."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from raymap.actors.batches import Drawn, Scored
from raymap.actors.generator import Generator
from raymap.actors.roles import WorkerInfo
from raymap.actors.specs import AttentionSpec, TablesSpec
from raymap.drawing.attention.denoise import Compared, Comparer
from raymap.drawing.attention.heat import TokenMaps
from raymap.drawing.attention.tokens import CLASSES
from raymap.plan.blocks import Block
from raymap.store.schema import ATTENTION, ATTENTION_TOKENS, stamped
from raymap.study.adapter import BASE, AdapterInfo


class AttentionMeter:
    """One base on one device, whose attention is compared with that under every adapter."""

    def __init__(self, spec: AttentionSpec) -> None:
        self._generator = Generator(spec.generator)
        own, drawing = self._generator, spec.generator
        self._comparer = Comparer(
            own.pipeline, own.store, own.encoder, drawing.sampler, spec.settings, drawing.batch_size, spec.size
        )

    def ready(self, scorer: bool = True) -> WorkerInfo:
        """Return what is recorded of a worker; `scorer` is the answer of the actor beside it."""
        return self._generator.ready(scorer)

    def draw(self, block: Block, adapter: str) -> tuple[Compared | None, Drawn]:
        """Compare a block's attention under an adapter with the base's; for the base itself nothing is measured."""
        start = time.perf_counter()
        prompts = [item.prompt for item in block.items]
        if adapter == BASE:
            return None, Drawn((False,) * len(prompts), self._generator.device, {})
        unchanged = self._generator.unchanged(prompts, adapter)
        if all(unchanged):
            compared = self._comparer.unmoved(prompts)
        else:
            seeds = tuple(item.seed for item in block.items)
            compared, _ = self._comparer.compare(adapter, prompts, seeds)
        return compared, Drawn(tuple(unchanged), self._generator.device, {"draw_s": time.perf_counter() - start})


class AttentionTables:
    """Turns comparisons into rows of schema ATTENTION, in the role of a scorer."""

    def __init__(self, spec: TablesSpec) -> None:
        self.spec = spec

    def ready(self) -> bool:
        return True

    def score_base(self, block: Block, batch: None, drawn: Drawn) -> Scored:
        """Return no rows: the base alone has no shift."""
        return Scored(stamped(ATTENTION, self.spec.digest).empty_table(), None, [], drawn.device, drawn.seconds)

    def read_base(self, block: Block) -> None:
        """Return nothing: a comparison needs no images."""

    def score_adapted(self, block: Block, adapter: AdapterInfo, batch: Compared, drawn: Drawn, base: None) -> Scored:
        """Return one row per prompt, seed, protocol, layer, bin, head group and class of tokens that the prompt has."""
        table = attention_table(block, adapter, batch, self.spec.protocols, self.spec.digest)
        tokens = None if batch.heat is None else token_table(block, adapter, batch.heat, self.spec.digest)
        return Scored(table, tokens, [], drawn.device, drawn.seconds)


def attention_table(
    block: Block, adapter: AdapterInfo, compared: Compared, protocols: tuple[str, ...], digest: str
) -> pa.Table:
    """Return a comparison's rows (schema ATTENTION)."""
    shape = compared.shifts.shape[:-1]
    at = [index.ravel() for index in np.indices(shape)]
    protocol, item, layer, bin_, group, kind = at
    tokens = compared.tokens[item, kind]
    kept = tokens > 0
    protocol, item, layer, bin_, group, kind, tokens = (x[kept] for x in (*at, tokens))
    delta, attention, js = compared.shifts.reshape(-1, compared.shifts.shape[-1])[kept].T
    proved = np.isnan(attention)

    def named(values: list[str], index: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(index, pa.int16()), pa.array(values, pa.string()))

    constant = np.zeros(len(item), np.int16)
    items = block.items
    columns: dict[str, Any] = {
        **{name: named([getattr(adapter, key)], constant) for name, key in _OF_ADAPTER.items()},
        "prompt_id": named([i.prompt_id for i in items], item),
        "prompt_category": named([i.prompt_category for i in items], item),
        "seed": np.array([i.seed for i in items], np.int64)[item],
        "protocol": named(list(protocols), protocol),
        "layer": named(list(compared.layers), layer),
        "bin": bin_.astype(np.int8),
        "timestep": np.array(compared.timesteps, np.float32)[bin_],
        "heads": group.astype(np.int8),
        "tokens": named(list(CLASSES), kind),
        "n_tokens": tokens.astype(np.int16),
        "delta": delta / tokens.astype(np.float32),
        "attention": pa.array(attention / tokens.astype(np.float32), pa.float32(), mask=proved),
        "js": js,
        "drawn": ~proved,
    }
    return pa.table(columns, schema=stamped(ATTENTION, digest))


def token_table(block: Block, adapter: AdapterInfo, heat: TokenMaps, digest: str) -> pa.Table:
    """Return the maps of single tokens (schema ATTENTION_TOKENS)."""
    rows = [
        {
            "adapter": adapter.name,
            "prompt_id": block.items[item].prompt_id,
            "seed": block.items[item].seed,
            "position": k + 1,
            "token": token,
            "base": base[k].ravel(),
            "adapted": adapted[k].ravel(),
        }
        for item, tokens, base, adapted in zip(heat.items, heat.tokens, heat.base, heat.adapted, strict=True)
        for k, token in enumerate(tokens)
    ]
    return pa.Table.from_pylist(rows, stamped(ATTENTION_TOKENS, digest))


_OF_ADAPTER = {"adapter": "name", "method": "method", "subject": "subject", "subject_category": "subject_category"}
